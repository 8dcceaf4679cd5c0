package netns

import (
	"net/netip"
	"testing"
)

// TestEgress: a connection of the stack reaches the server with the host's
// address and its answers come back, on every kind of host with policy DROP.
func TestEgress(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			w := newWorld(t, k.sysctls...)
			w.useAllTables()
			w.serve(w.server, "server", 80)
			h, err := install(w.cloudPlan(), quiet, k.variant)
			must(t, err)
			defer h.Close()
			stack := newEchoStack(t, h, 3, FanoutLocalPort, false)
			hub := h.Hub()
			for i, source := range []string{"198.18.2.2", "fd00:2::2"} {
				local := netip.AddrPortFrom([]netip.Addr{hub.Hub4, hub.Hub6}[i], uint16(40000+i))
				remote := netip.MustParseAddrPort(at(families[i].server, 80))
				out := segment{src: local, dst: remote, seq: 7, flags: flagSYN}
				stack.send(stack.fds[0], out)
				first := stack.expect(local, flagSYN|flagACK)
				if int(local.Port())%3 != first.worker {
					t.Errorf("port %d came to worker %d", local.Port(), first.worker)
				}
				answer, _ := parseSegment(first.frame)
				out.seq, out.ack, out.flags = 8, answer.seq+1, flagACK
				stack.send(stack.fds[0], out)
				data := stack.expectData(local)
				if data != "server "+source+"\n" {
					t.Errorf("the server says %q", data)
				}
				// A refused port is told as a reset.
				refused := segment{src: withPort(local, 41000), dst: withPort(remote, 81), seq: 7, flags: flagSYN}
				stack.send(stack.fds[0], refused)
				stack.expect(refused.src, 0x14)
			}
		})
	}
}

// TestUnreachableIsTold: the ICMP error about a dialled connection comes back.
func TestUnreachableIsTold(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	w.in(w.server, "ip route add unreachable 198.18.101.0/24", "ip -6 route add unreachable fd00:65::/64",
		"echo 1 > /proc/sys/net/ipv4/ip_forward", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	h := w.install(w.cloudPlan())
	stack := newEchoStack(t, h, 2, FanoutLocalPort, false)
	for i, remote := range []string{"198.18.101.1:80", "[fd00:65::1]:80"} {
		local := netip.AddrPortFrom([]netip.Addr{h.Hub().Hub4, h.Hub().Hub6}[i], 50001)
		stack.send(stack.fds[0], segment{src: local, dst: netip.MustParseAddrPort(remote), flags: flagSYN})
		eventually(t, "an ICMP error over IPv"+[]string{"4", "6"}[i], func() bool {
			for _, a := range stack.arrivals() {
				ip := a.frame[etherLen:]
				if i == 0 && ip[0]>>4 == 4 && ip[9] == protoICMP || i == 1 && ip[0]>>4 == 6 && ip[6] == protoIP6I {
					if a.worker != 1 {
						t.Errorf("the error came to worker %d", a.worker)
					}
					return true
				}
			}
			return false
		})
	}
}

// expect waits for a segment to one of the stack's ends.
func (s *echoStack) expect(to netip.AddrPort, flags byte) (found arrival) {
	s.t.Helper()
	eventually(s.t, "an answer to "+to.String(), func() bool {
		for _, a := range s.arrivals() {
			if in, ok := parseSegment(a.frame); ok && in.dst == to && in.flags&^0x08 == flags {
				found = a
				return true
			}
		}
		return false
	})
	if found.frame == nil {
		s.t.FailNow()
	}
	return found
}

func (s *echoStack) expectData(to netip.AddrPort) (data string) {
	s.t.Helper()
	eventually(s.t, "data to "+to.String(), func() bool {
		for _, a := range s.arrivals() {
			if in, ok := parseSegment(a.frame); ok && in.dst == to && len(in.data) > 0 {
				data = string(in.data)
				return true
			}
		}
		return false
	})
	return data
}
