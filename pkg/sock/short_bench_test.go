package sock

import (
	"net/netip"
	"testing"
	"time"

	"hawser/pkg/party"
)

// BenchmarkShort is a connection that is dialled, accepted and closed by one worker.
func BenchmarkShort(b *testing.B) {
	r := newRig(b)
	accepted := 0
	l, err := Listen(r.p, netip.MustParseAddrPort("127.0.0.1:0"), func(c *Conn) {
		accepted++
		c.Abort()
	})
	must(b, err)
	defer l.Close()
	b.ReportAllocs()
	for b.Loop() {
		c, err := Dial(r.p, l.Addr(), 0, "")
		must(b, err)
		c.Watch(func(party.Ready) {})
		for want := accepted + 1; accepted < want; {
			must(b, r.p.Wait(time.Second))
		}
		c.Abort()
	}
}
