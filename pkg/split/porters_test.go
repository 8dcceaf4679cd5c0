package split

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// TestPortersStay: who has made a handshake makes the next ones, as far as there is
// room for those who wait, until they are sent away or the end.
func TestPortersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPorters()
		var started, met atomic.Int32
		more := make(chan struct{})
		meet := func(r *tcp.ForwarderRequest) { // as Stack.handshake does
			if p.take(r) {
				return
			}
			started.Add(1)
			for ; r != nil; r = p.rest() {
				met.Add(1)
				<-more
			}
		}
		arrive := func(n int) {
			for range n {
				go meet(new(tcp.ForwarderRequest))
				synctest.Wait()
			}
			for range n {
				more <- struct{}{}
			}
			synctest.Wait()
		}
		arrive(1)
		arrive(1)
		if started.Load() != 1 || met.Load() != 2 {
			t.Errorf("%d porters met %d clients, want one and 2", started.Load(), met.Load())
		}
		arrive(porterMost + 5)
		arrive(porterMost)
		if n := int32(2*porterMost + 7); started.Load() != porterMost+5 || met.Load() != n {
			t.Errorf("%d porters met %d clients, want %d and %d", started.Load(), met.Load(), porterMost+5, n)
		}
		before := started.Load()
		p.thin()
		synctest.Wait()
		arrive(1)
		if n := started.Load() - before; n != 1 {
			t.Errorf("%d porters are fresh after the others were sent away, want one", n)
		}
		p.close()
		go meet(new(tcp.ForwarderRequest)) // the last one does not stay
		more <- struct{}{}
	}) // fails while somebody waits
}

// TestOutboxRests: the room for a crowd's packets goes, that for packets which wait stays.
func TestOutboxRests(t *testing.T) {
	o := newOutbox(nil, &counters{})
	o.queue, o.spare = make([]*stack.PacketBuffer, 0, outboxMax), make([]*stack.PacketBuffer, 0, outboxMax)
	pkt := netstackPacket(false, false, 1, []byte("waits"))
	defer pkt.DecRef()
	o.held = 1 // nobody sends
	if err := o.enqueue(pkt); err != nil {
		t.Fatal(err)
	}
	if o.rest(); len(o.queue) != 1 {
		t.Fatalf("%d packets wait", len(o.queue))
	}
	o.queue = o.queue[:0]
	pkt.DecRef()
	if o.rest(); cap(o.queue)+cap(o.spare) > 0 {
		t.Errorf("room for %d packets is kept", cap(o.queue)+cap(o.spare))
	}
}
