package split

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/guard"
	"hawser/pkg/repair"
)

const (
	stormFlows = 3000
	stormPiece = 1000                 // bytes, which each flow sends once a second
	stormTurn  = 5 * time.Millisecond // how often the outbox sends
	stormLeave = 50                   // packets, in each turn: 10,000 a second
)

// storm is a crowd of one address beyond an outbox that sends so many packets a
// second, in virtual time.
type storm struct {
	m       *mender
	mu      sync.Mutex // guards queue: the mender's ticks send, too
	queue   []*stack.PacketBuffer
	clients [stormFlows]stormClient
	payload []byte
	address [16]byte // the clients'
}

// stormClient is one connection: what netstack has sent and knows, and what the client has.
type stormClient struct {
	next, una, rcv uint32
	beyond         []repair.Range // what the client has beyond rcv, in order
	due            time.Time      // netstack's timer
	tries          int
}

func newStorm() *storm {
	s := &storm{payload: make([]byte, stormPiece)}
	s.m = &mender{
		count: &counters{}, peers: newPeers(), flows: map[guard.Ends]*mended{},
		scale:   func(*guard.Ends) (uint8, bool) { return 0, true },
		send:    func(pkt *stack.PacketBuffer) { s.enqueue(pkt); pkt.DecRef() },
		waiting: s.waiting,
		reset:   func(*guard.Ends, uint32, bool) {},
	}
	put(&s.address, []byte{10, 0, 0, 2})
	for i := range s.clients {
		s.clients[i] = stormClient{next: 1, una: 1, rcv: 1}
	}
	return s
}

func (s *storm) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

func (s *storm) enqueue(pkt *stack.PacketBuffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= outboxMax {
		s.m.count.sendDrops.Add(1)
		return
	}
	s.queue = append(s.queue, pkt.IncRef())
}

// hold sends at once what being held up for two seconds leaves.
func (s *storm) hold() {
	for i := range s.clients {
		s.send(i)
		s.send(i)
	}
}

func (s *storm) close() {
	s.m.close()
	for _, pkt := range s.queue {
		pkt.DecRef()
	}
}

// carry sends a piece of flow i as netstack does.
func (s *storm) carry(i int, seq uint32) {
	pkt := netstackPacket(false, false, seq, s.payload)
	header.TCP(pkt.TransportHeader().Slice()).SetDestinationPort(uint16(i + 1))
	s.m.outbound(pkt)
	s.enqueue(pkt)
	pkt.DecRef()
}

func (s *storm) send(i int) {
	c := &s.clients[i]
	if c.next == c.una {
		c.due, c.tries = time.Now().Add(200*time.Millisecond), 0
	}
	s.carry(i, c.next)
	c.next += stormPiece
}

// timers sends again what netstack's own timers ask for.
func (s *storm) timers() {
	for i := range s.clients {
		if c := &s.clients[i]; c.next != c.una && time.Now().After(c.due) {
			c.tries++
			c.due = time.Now().Add(200 * time.Millisecond << c.tries)
			s.carry(i, c.una)
		}
	}
}

// leave lets one turn's packets go, and their clients answer.
func (s *storm) leave() {
	s.mu.Lock()
	n := min(stormLeave, len(s.queue))
	gone := s.queue[:n]
	s.queue = s.queue[n:]
	s.mu.Unlock()
	for _, pkt := range gone {
		tcp := header.TCP(pkt.TransportHeader().Slice())
		i, seq := int(tcp.DestinationPort())-1, tcp.SequenceNumber()
		pkt.DecRef()
		s.arrive(i, seq)
	}
}

func (s *storm) arrive(i int, seq uint32) {
	c := &s.clients[i]
	var blocks []uint32
	switch {
	case int32(seq-c.rcv) < 0:
		blocks = []uint32{seq, seq + stormPiece} // a duplicate (RFC 2883)
	case seq == c.rcv:
		c.rcv += stormPiece
		if len(c.beyond) > 0 && c.beyond[0].From == c.rcv {
			c.rcv, c.beyond = c.beyond[0].To, c.beyond[1:]
		}
	case len(c.beyond) > 0 && c.beyond[0].To == seq:
		c.beyond[0].To += stormPiece
	case len(c.beyond) == 0:
		c.beyond = []repair.Range{{From: seq, To: seq + stormPiece}}
	}
	if len(c.beyond) > 0 {
		blocks = append(blocks, c.beyond[0].From, c.beyond[0].To)
	}
	options := [][]byte{stampOption(1, 2)}
	if len(blocks) > 0 {
		options = append(options, sackOption(blocks...))
	}
	tcp := tcpHeader(c.rcv, 60000, options...)
	tcp.SetSourcePort(uint16(i + 1))
	ack := inboundSegment(tcp)
	header.TCP(ack.ip[ack.start:]).SetDestinationPort(1000)
	header.TCP(ack.ip[ack.start:]).SetSourcePort(uint16(i + 1))
	if s.m.inbound(&ack) == pass {
		if told := ack.tcp().AckNumber(); int32(told-c.una) > 0 {
			c.una, c.due, c.tries = told, time.Now().Add(200*time.Millisecond), 0
		}
	}
}

// run lets the crowd send for so many seconds and returns what was mended in each.
func (s *storm) run(seconds int) (mended []uint64) {
	turns := int(time.Second / stormTurn)
	for range seconds {
		before := s.m.count.mended.Load()
		for turn := range turns {
			s.leave()
			for i := turn; i < stormFlows; i += turns {
				s.send(i)
			}
			s.timers()
			time.Sleep(stormTurn)
			synctest.Wait()
		}
		mended = append(mended, s.m.count.mended.Load()-before)
	}
	return mended
}

// TestHeldUp: where an agent was held up for so long that its outbox overflows, the
// mender does not take what waits in there for lost.
func TestHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorm()
		defer s.close()
		s.m.peers.note(&s.address, 0)
		s.run(1)
		s.hold()
		after := s.run(3)
		t.Logf("mended per second: %v; %d dropped, %d wait", after, s.m.count.sendDrops.Load(), s.waiting())
		if n := total(after); n > stormFlows {
			t.Errorf("%d packets were sent again below netstack", n)
		}
		if n := s.waiting(); n > mendQueue {
			t.Errorf("%d packets wait", n)
		}
	})
}

// TestQueueStaysLong: where packets wait for good, what a client is owed is sent again all the
// same, once in mendPause: nobody else sends it.
func TestQueueStaysLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		m := &mender{
			count: &counters{}, peers: newPeers(), flows: map[guard.Ends]*mended{},
			scale:   func(*guard.Ends) (uint8, bool) { return 0, true },
			send:    func(pkt *stack.PacketBuffer) { sent.Add(1); pkt.DecRef() },
			waiting: func() int { return mendQueue + 1 },
		}
		defer m.close()
		gap := inboundSegment(tcpHeader(1, 60000, sackOption(3001, 5001)))
		m.inbound(&gap) // the client's first gap is netstack's
		pkt := netstackPacket(false, true, 1, make([]byte, 5000))
		defer pkt.DecRef()
		m.outbound(pkt)
		gap = inboundSegment(tcpHeader(1, 60000, sackOption(3001, 5001)))
		m.inbound(&gap)
		var counts [3]int64
		for i, d := range []time.Duration{mendPause / 2, mendPause, 5 * mendPause} {
			time.Sleep(d)
			synctest.Wait()
			counts[i] = sent.Load()
		}
		t.Logf("%v packets after half a pause, one and a half and 6.5", counts)
		if counts[0] != 0 || counts[1] == 0 || counts[2] == counts[1] || counts[2] > 6*3 {
			t.Error("they are not sent once in a pause")
		}
	})
}

// TestStormEnds: a queue that is not the outbox's own cannot be seen. What is sent again
// before its time must not keep that up: round trips that were once measured without it
// count no more when answers are late.
func TestStormEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorm()
		defer s.close()
		s.m.waiting = func() int { return 0 }
		s.m.peers.note(&s.address, 0)
		s.run(1)
		s.hold()
		after := s.run(6)
		t.Logf("mended per second: %v; %d wait", after, s.waiting())
		if n := total(after[4:]); n > stormFlows/10 || s.waiting() > mendQueue {
			t.Errorf("%d packets are still sent again, %d wait", n, s.waiting())
		}
	})
}

// TestOwnDrops: gaps that the outbox has made do not make a client one on a poor line.
func TestOwnDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorm()
		defer s.close()
		s.run(1)
		s.hold()
		s.run(2)
		if s.m.count.sendDrops.Load() == 0 || s.m.awake() {
			t.Errorf("%d packets were dropped, the mender is awake: %v", s.m.count.sendDrops.Load(), s.m.awake())
		}
		s.m.count.sendDrops.Add(1)
		gap := inboundSegment(tcpHeader(500, 60000, sackOption(1000, 2000)))
		if s.m.inbound(&gap); s.m.awake() {
			t.Error("a gap right after a drop counts")
		}
		time.Sleep(mendOwn)
		if s.m.inbound(&gap); !s.m.awake() {
			t.Error("a later gap does not count")
		}
	})
}

func total(list []uint64) (n uint64) {
	for _, x := range list {
		n += x
	}
	return n
}
