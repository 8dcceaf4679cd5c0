package split

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// probeSoon is after how much silence a probe goes out while Probe is at work, probeWait how
// long that is.
const (
	probeSoon = time.Millisecond
	probeWait = 20 * time.Millisecond
)

// Probe asks the other ends of all connections that rest whether they still stand, as is done
// after KeepAlive of silence: one that does not is reset soon and not after minutes. It does
// nothing where KeepAlive is off. It takes probeWait and about a microsecond for each
// connection, and may be called on any goroutine, but not by two at a time.
func (s *Stack) Probe() {
	ns := s.net.Load()
	if ns == nil || s.opts.KeepAlive < 0 {
		return
	}
	was := map[*tcp.Endpoint]tcpip.KeepaliveIdleOption{}
	soon := tcpip.KeepaliveIdleOption(probeSoon)
	for _, ep := range ns.RegisteredEndpoints() {
		e, ok := ep.(*tcp.Endpoint)
		var idle tcpip.KeepaliveIdleOption
		if !ok || e.GetSockOpt(&idle) != nil {
			continue
		}
		was[e] = idle
		_ = e.SetSockOpt(&soon) // cannot fail, nor below: as in keepAlive
	}
	time.Sleep(probeWait)
	for e, idle := range was {
		_ = e.SetSockOpt(&idle)
	}
}
