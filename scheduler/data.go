package scheduler

import "time"

// Data is data order: when bytes of a flow that are under way already go a
// second time, in place of new ones.
type Data interface {
	// Copy says on which of links a chunk of n bytes that is late on links[on]
	// should be sent again, or false. wait is how much longer it is likely to take.
	Copy(links []Link, on, n int, wait time.Duration) (int, bool)
	// Urgent says where else than on links[on] a chunk of n bytes at offset off
	// of its flow should be sent at once, or false. alone: its flow has nothing
	// else under way. The copy is charged.
	Urgent(links []Link, on, off, n int, alone bool) (int, bool)
	// Beside says whether such a chunk should also go a second time by the same link,
	// by its other strand. The copy is charged.
	Beside(off, n int, alone bool) bool
	// Again says whether a chunk of n bytes may go again by the same link.
	Again(n int) bool
	// Spend notes that a copy of n bytes was sent.
	Spend(n int)
	// Delivered notes that n bytes have arrived.
	Delivered(n int)
	// Received notes that n new bytes have come from the peer.
	Received(n int)
}

// NewData returns a data order.
func NewData(k DataKind) Data {
	if k == DataFIFO {
		return FIFO{}
	}
	o := NewOverdue()
	return &o
}

// FIFO is data order by offset alone: a chunk goes again only when its link is
// suspect or gone.
type FIFO struct{}

// Copy implements Data.
func (FIFO) Copy([]Link, int, int, time.Duration) (int, bool) { return 0, false }

// Again implements Data.
func (FIFO) Again(int) bool { return false }

// Spend implements Data.
func (FIFO) Spend(int) {}

// Urgent implements Data.
func (FIFO) Urgent([]Link, int, int, int, bool) (int, bool) { return 0, false }

// Beside implements Data.
func (FIFO) Beside(int, int, bool) bool { return false }

// Delivered implements Data.
func (FIFO) Delivered(int) {}

// Received implements Data.
func (FIFO) Received(int) {}
