package netns

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// ends are the addresses of one family.
type ends struct {
	family                             int
	client, host, server, excluded, lo string
	cloud                              string
}

var families = []ends{
	{4, "198.18.1.2", "198.18.1.1", "198.18.100.1", "198.18.100.2", "127.0.0.1", "198.18.100.9"},
	{6, "fd00:1::2", "fd00:1::1", "fd00:64::1", "fd00:64::2", "::1", "fd00:64::9"},
}

func at(addr string, port int) string { return net.JoinHostPort(addr, fmt.Sprint(port)) }

// TestSteering: on every kind of host, with policy DROP, the stack answers in
// the place of the server, for clients and for the host itself.
func TestSteering(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			w := newWorld(t, k.sysctls...)
			w.useAllTables()
			w.serve(w.server, "server", 80)
			h, err := install(w.plan, quiet, k.variant)
			must(t, err)
			defer h.Close()
			newEchoStack(t, h, 2, FanoutSource, true)
			for _, e := range families {
				w.asks("client", w.client, bound{}, at(e.server, 80), "stack")
				w.asks("client to nowhere", w.client, bound{}, at(strings.Replace(e.server, "100", "77", 1), 81), "stack")
				w.asks("host", here, bound{}, at(e.server, 80), "stack")
			}
		})
	}
}

// TestEverythingElseIsLeftAlone compares a router before, with and after
// hawser.
func TestEverythingElseIsLeftAlone(t *testing.T) {
	w := newWorld(t, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
	w.serve(w.server, "server", 80)
	w.serve(here, "host", 22)
	w.serve(w.client, "client", 8080)
	for _, e := range families {
		w.serveUDP(w.server, at(e.server, 9))
	}
	w.everythingElse("before")
	old := w.openConnections()
	h := w.install(w.plan)
	newEchoStack(t, h, 1, FanoutSource, true)
	w.everythingElse("with hawser")
	for what, c := range old {
		if got := w.talk(c); got != "stack" { // the server's echo
			t.Errorf("connection from before Install, %s: %s", what, got)
		}
		c.Close()
	}
	w.asks("client", w.client, bound{}, at(serverAddr4, 80), "stack")
	must(t, h.Close())
	w.everythingElse("after")
	w.asks("client after Close", w.client, bound{}, at(serverAddr4, 80), "server "+clientAddr4)
}

func (w *world) everythingElse(when string) {
	w.t.Helper()
	uplink, other, server := []string{"198.18.2.2", "fd00:2::2"}, []string{"198.18.4.2", "fd00:4::2"}, []string{"198.18.2.1", "fd00:2::1"}
	for i, e := range families {
		w.asks(when+", excluded", w.client, bound{}, at(e.excluded, 80), "server "+e.client)
		w.asks(when+", excluded from the host", here, bound{}, at(e.excluded, 80), "server "+uplink[i])
		w.asks(when+", other interface", w.other, bound{}, at(e.server, 80), "server "+other[i])
		w.asks(when+", client to the host", w.client, bound{}, at(e.host, 22), "host "+e.client)
		w.asks(when+", server to the host", w.server, bound{}, at(uplink[i], 22), "host "+server[i])
		w.asks(when+", server to the client", w.server, bound{}, at(e.client, 8080), "client "+server[i])
		w.asks(when+", host to itself", here, bound{}, at(e.lo, 22), "host "+e.lo)
		w.asks(when+", marked socket", here, bound{mark: BypassMark}, at(e.server, 80), "server "+uplink[i])
		if !w.ping(w.client, e.server) || !w.ping(here, e.server) {
			w.t.Errorf("%s: ping of %s is not answered", when, e.server)
		}
		if !w.udp(w.client, at(e.server, 9)) || !w.udp(here, at(e.server, 9)) {
			w.t.Errorf("%s: UDP to %s is not answered", when, e.server)
		}
	}
	// The address of the IPv4 links' far end is the cloud itself.
	w.asks(when+", host to the cloud", here, bound{}, "198.18.100.9:80", "server 198.18.2.2")
}

// openConnections are connections that hawser must not touch when it comes.
func (w *world) openConnections() map[string]net.Conn {
	open := map[string]net.Conn{}
	for _, e := range families {
		for _, from := range []string{"client", "host"} {
			ns := w.client
			if from == "host" {
				ns = here
			}
			c, err := w.dial(ns, bound{}, at(e.server, 80))
			must(w.t, err)
			banner := make([]byte, 6)
			_, err = io.ReadFull(c, banner)
			must(w.t, err)
			for one := []byte{0}; one[0] != '\n'; {
				_, err = c.Read(one)
				must(w.t, err)
			}
			open[fmt.Sprintf("%s over IPv%d", from, e.family)] = c
		}
	}
	return open
}

// TestHostDoesNotBecomeARouter: a host that forwarded nothing forwards only to
// the hub.
func TestHostDoesNotBecomeARouter(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		if k.name == "router" {
			continue
		}
		for _, role := range []string{RoleEdge, RoleCloud} {
			t.Run(k.name+"/"+role, func(t *testing.T) {
				w := newWorld(t, k.sysctls...)
				p := w.plan
				if role == RoleCloud {
					p = w.cloudPlan()
				}
				w.serve(w.server, "server", 80)
				h, err := install(p, quiet, k.variant)
				must(t, err)
				defer h.Close()
				w.patience = impatient
				for i, e := range families {
					w.serveUDP(w.server, at(e.server, 9))
					if w.ping(w.client, e.server) || w.udp(w.client, at(e.server, 9)) || w.ping(w.other, e.server) {
						t.Errorf("IPv%d packets are forwarded that were not before", e.family)
					}
					w.asks("other", w.other, bound{}, at(e.server, 80), nobody)
					hub := []string{h.Hub().Hub4.String(), h.Hub().Hub6.String()}[i]
					stack := newEchoStack(t, h, 1, FanoutSource, true)
					w.asks("other to the hub itself", w.other, bound{}, at(hub, 80), nobody)
					if got := stack.arrivals(); len(got) > 0 {
						t.Errorf("a neighbour reached the hub: % x", got[0].frame)
					}
				}
			})
		}
	}
}

func TestPorts(t *testing.T) {
	w := newWorld(t, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
	for port := 100; port < 140; port += 2 { // more than one multiport match holds
		w.plan.Ports = append(w.plan.Ports, PortRange{uint16(port), uint16(port)})
	}
	w.plan.Ports = append(w.plan.Ports, PortRange{1000, 1999}, PortRange{65535, 65535})
	for _, port := range []int{99, 101, 2000} {
		w.serve(w.server, "server", port)
	}
	h := w.install(w.plan)
	newEchoStack(t, h, 1, FanoutSource, true)
	for _, e := range families {
		for _, port := range []int{100, 138, 1000, 1999, 65535} {
			w.asks("wanted", w.client, bound{}, at(e.server, port), "stack")
		}
		for _, port := range []int{99, 101, 2000} {
			w.asks("not wanted", w.client, bound{}, at(e.server, port), "server "+e.client)
		}
	}
}

// TestOtherBitsOfTheMark: a mark that the host sets itself survives steering.
func TestOtherBitsOfTheMark(t *testing.T) {
	w := newWorld(t)
	w.run("iptables -t mangle -A PREROUTING -i lan0 -j MARK --set-xmark 0x5/0xff",
		"iptables -t mangle -N SEEN", "iptables -t mangle -A FORWARD -m mark --mark 0x20000005/0xffffffff -j SEEN")
	h := w.install(w.plan)
	newEchoStack(t, h, 1, FanoutSource, true)
	w.asks("client", w.client, bound{}, at(serverAddr4, 80), "stack")
	if out := output(t, "iptables -t mangle -L FORWARD -v -n -x | grep SEEN"); strings.Fields(out)[0] == "0" {
		t.Errorf("no packet carried both marks: %s", out)
	}
}

// TestAddressesAreKept: a host that translates all its clients does not do so
// towards the stack.
func TestAddressesAreKept(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	w.translateClients()
	h := w.install(w.plan)
	w.addressesAreKept(newEchoStack(t, h, 1, FanoutSource, true))
}

// TestAddressesAreKeptLater: the same for a host that comes to translate while hawser runs,
// where there is a chain for it anyway.
func TestAddressesAreKeptLater(t *testing.T) {
	w := newWorld(t)
	w.plan.Direct = true
	h := w.install(w.plan)
	stack := newEchoStack(t, h, 1, FanoutSource, true)
	w.translateClients()
	w.addressesAreKept(stack)
}

func (w *world) translateClients() {
	w.run("iptables -t nat -A POSTROUTING -s 198.18.0.0/16 -j MASQUERADE", "ip6tables -t nat -A POSTROUTING -s fd00::/16 -j MASQUERADE")
}

func (w *world) addressesAreKept(stack *echoStack) {
	w.t.Helper()
	for _, e := range families {
		w.asks("client", w.client, bound{}, at(e.server, 80), "stack")
	}
	for _, a := range stack.arrivals() {
		if s, ok := parseSegment(a.frame); ok && s.src.Addr().String() != clientAddr4 && s.src.Addr().String() != clientAddr6 {
			w.t.Errorf("the stack sees %v", s.src)
		}
	}
}

// TestUntracked: clients whose packets the host does not track are steered, too,
// and the answers of its own servers are not.
func TestUntracked(t *testing.T) {
	w := newWorld(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft: apt-get install nftables")
	}
	w.run("nft add table inet bare", "nft add chain inet bare pre '{ type filter hook prerouting priority raw; }'", "nft add rule inet bare pre notrack",
		"nft add chain inet bare out '{ type filter hook output priority raw; }'", "nft add rule inet bare out notrack")
	w.serve(here, "host", 22)
	h := w.install(w.plan)
	newEchoStack(t, h, 1, FanoutSource, true)
	for i, e := range families {
		w.asks("client", w.client, bound{}, at(e.server, 80), "stack")
		w.asks("server to the host", w.server, bound{}, at([]string{"198.18.2.2", "fd00:2::2"}[i], 22), "host "+[]string{"198.18.2.1", "fd00:2::1"}[i])
	}
}

// TestErrorsReachTheStack: an ICMP error of a client's router about a steered
// connection goes to the stack, another one does not. The host's own does, too.
func TestErrorsReachTheStack(t *testing.T) {
	w := newWorld(t)
	w.plan.Local = false
	h := w.install(w.plan)
	stack := newEchoStack(t, h, 1, FanoutSource, true)
	for _, e := range families {
		c, err := w.dial(w.client, bound{}, at(e.server, 80))
		must(t, err)
		defer c.Close()
		client := c.LocalAddr().(*net.TCPAddr).AddrPort()
		server := netip.MustParseAddrPort(at(e.server, 80))
		kind, network := byte(3), "ip4:icmp"
		if e.family == 6 {
			kind, network = 2, "ip6:ipv6-icmp"
		}
		quote := segment{src: server, dst: client, seq: 1001, flags: flagACK}
		body := icmpError(client.Addr(), server.Addr(), kind, quote.packet())
		body = body[len(body)-8-len(quote.packet()):]
		body[1], body[6], body[7] = 4, 5, 0 // fragmentation needed, MTU 1280 (IPv4)
		if e.family == 6 {
			body[1], body[6], body[7] = 0, 5, 0
		} else {
			sum := checksum(body)
			body[2], body[3] = byte(sum>>8), byte(sum)
		}
		must(t, w.visit(w.client, func() error {
			raw, err := net.Dial(network, e.server)
			if err != nil {
				return err
			}
			defer raw.Close()
			_, err = raw.Write(body)
			return err
		}))
		eventually(t, "the ICMP error", func() bool {
			return slices.ContainsFunc(stack.arrivals(), func(a arrival) bool {
				ip := a.frame[etherLen:]
				return ip[0]>>4 == 4 && ip[9] == protoICMP && e.family == 4 || ip[0]>>4 == 6 && ip[6] == protoIP6I && e.family == 6
			})
		})
	}
	w.ownErrors(stack)
}
