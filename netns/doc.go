// Package netns installs the virtual host that carries steered TCP between
// this machine and the user-space stack, and removes it without a trace.
//
// # What stands on the host
//
// A named network namespace and a veth pair: hub0 on the host, hub1 inside.
// The user-space stack is the only speaker on hub1 and reaches it through raw
// packet sockets (Capture). Towards the stack the host has:
//
//   - edge: a chain in mangle/PREROUTING that marks TCP opened by clients, and
//     a policy rule that routes the mark to hub0. With Plan.Local the same in
//     mangle/OUTPUT for connections that the host itself opens. Per link the
//     routes of its own uplink.
//   - cloud: masquerade for connections that the stack opens.
//   - both: an accept chain in filter/FORWARD, forwarding where it is missing,
//     and the per-hub settings that the packets need.
//
// # Without a hub
//
// With InterceptTPROXY the edge has neither namespace nor hub and forwards
// nothing. The chain in mangle/PREROUTING gives the packets to transparent
// sockets of the agent (TPROXY), and the policy rule leads them to a table that
// calls every address the host's own. An accept chain stands in filter/INPUT,
// one for the answers in filter/OUTPUT. With Plan.Local what the host sends is
// marked in mangle/OUTPUT, routed to lo and taken where it arrives.
//
// # What is left alone
//
// Only connections whose first SYN passed the chain while it was in place are
// steered; the decision is kept in the connection's conntrack mark. So
// connections that were open before Install go on untouched, and so do the
// answers of servers among the clients or on the host itself. Packets that the
// host does not track (NOTRACK) are decided one by one instead.
//
// Where an interface did not forward before, it forwards only to hub0: a drop
// rule keeps the rest as it was. Filter rules of the host do not see steered
// connections, because the accept chain comes first: clients are to be blocked
// in the raw or mangle table, or by Plan.Exclude.
//
// What cannot be helped from here: nftables rules of others that drop forwarded
// packets still drop them (Check tells), and so does a reverse path filter for IPv6
// (firewalld's IPv6_rpfilter=strict), because answers come from hub0 with the
// servers' addresses (not without a hub). A rule of the host that overwrites the whole packet mark
// (MARK --set-mark without a mask) on the client interfaces undoes steering.
//
// # Order and undo
//
// Install is one list of steps. How to undo a step is written to the journal
// before the step runs, so a crash at any point can be undone by the next
// Install or by Cleanup. An undo that finds nothing to do succeeds.
//
// Change has the host be what another plan says of links, exclusions and ports while it
// stands, by the same steps and the same journal: what it leads to is what Install would.
//
// # Goroutines
//
// Kernel calls are made from a short-lived goroutine bound to a thread in the
// right namespace; it ends before the call returns. Watch is the only
// long-running call: it owns the netlink readers and keep, stops them when its
// context ends and returns after all have ended.
//
// # Files
//
// The host's owner and his list of steps:
//   - host: Install, Host, the variants; plan: what is asked for; names: what is called how
//   - steps: a step and its undoing; entry: the undoing as written; journal: the file of it
//   - cleanup: after a crash; former: former values of settings, kept in the kernel, too
//   - check: would Install work; refusal: rules of others that would drop ours
//
// The parts:
//   - space, inside: the namespace, and how to be in it; hub: the veth pair; capture: packet
//     sockets on it
//   - program: classic BPF for them; shield: what the SYN program needs to know
//   - steer: marking and routing of clients' connections; pause: not for now
//   - tproxy, tproxy_check: the same without a hub; sockets: TIME_WAIT that is in the way
//   - forward: forwarding and who may not; egress: masquerading at the cloud
//   - uplink: routes per link; uplink_state: what the kernel says of an uplink; traffic: its
//     counters
//   - gateway: does it answer; segment: two uplinks on one segment
//
// Keeping it so:
//   - keep: puts back what others remove; keep_sysctl: settings; replug: interfaces made anew
//   - ahead: policy rules of others that come first; returns: what is masqueraded by is back
//   - change: another plan while connections go on
//
// Tools:
//   - firewall: iptables; nft: questions to nf_tables; sysctl: /proc/sys; lists: netlink lists
package netns
