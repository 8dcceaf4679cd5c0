package split

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// deaf returns a packet socket to which nothing comes, and which sends nothing.
func deaf(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip("needs root:", err)
	}
	return fd
}

// BenchmarkJoin is what a client's connection costs from when its server is there
// until netstack has it, and its end.
func BenchmarkJoin(b *testing.B) {
	o := Options{FD: deaf(b), HubMAC: []byte(lanClient), HostMAC: []byte(lanClient), KeepAlive: -1}
	o.Guard = &GuardOptions{SYN: deaf(b), Gate: NewGate(guard.ZeroWindow, guard.Limits{Pending: 1 << 16})}
	s, err := New(o, func(*Conn) {})
	must(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for s.net.Load() == nil {
	}
	var next atomic.Uint32
	tcp := make([]byte, 20)
	tcp[12] = 5 << 4
	binary.BigEndian.PutUint32(tcp[8:], 2)
	one := func() {
		i := next.Add(1)
		var e guard.Ends
		put(&e.Client, []byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		put(&e.Server, []byte{198, 18, 200, 7})
		e.ClientPort, e.ServerPort = 1024, 80
		w, asked := s.keeper.enroll(&e, true, func() *ward {
			return &ward{ends: e, flow: guard.NewFlow(guard.Hello{ISN: 1, MSS: 1460}, 1, false, tcp)}
		})
		if !asked {
			b.Error("refused")
			return
		}
		s.keeper.begin(w, false)
		up := make(chan struct{}, 4)
		w.conn.Watch(func(party.Ready) {
			select {
			case up <- struct{}{}:
			default:
			}
		})
		w.conn.Open(-1)
		<-up
		w.conn.Abort()
	}
	before := cpu(b)
	b.ResetTimer()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			one()
		}
	})
	b.StopTimer()
	b.ReportMetric((cpu(b)-before).Seconds()*1e6/float64(b.N), "CPU-us/op")
	cancel()
	must(b, <-done)
}
