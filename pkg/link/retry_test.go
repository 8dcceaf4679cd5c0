package link

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRetry: the kernel's back-off may last as long as answers take, and no longer.
func TestRetry(t *testing.T) {
	edge, _ := startCloud(t, loopback, nil).connect(TCP)
	p := edge.pipe.(*tcpPipe)
	for _, c := range []struct{ rtt, want time.Duration }{
		{50 * time.Millisecond, time.Second},
		{500 * time.Millisecond, time.Second},
		{600 * time.Millisecond, 2 * time.Second},
		{5 * time.Second, 16 * time.Second},
		{time.Hour, 32 * time.Second},
		{50 * time.Millisecond, time.Second},
	} {
		var got int
		var err error
		if failed := p.raw.Control(func(fd uintptr) {
			p.wait(int(fd), c.rtt)
			got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpRTOMax)
		}); failed != nil {
			t.Fatal(failed)
		}
		if err != nil {
			t.Skip("this kernel has no TCP_RTO_MAX_MS, from Linux 6.15 on: ", err)
		}
		if time.Duration(got)*time.Millisecond != c.want {
			t.Errorf("round trip %v: %d ms, want %v", c.rtt, got, c.want)
		}
	}
}
