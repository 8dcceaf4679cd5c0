package shunt

import (
	"math/bits"
	"sync/atomic"
	"time"

	"hawser/pkg/splice"
)

// grace is how long a place that was left is not given away: the program may just
// be looking at it.
const grace = time.Second

// Bits of a path.
const (
	bitSACK = 1 << iota
	bitStamps
	bitClientEnds
	bitServerEnds
)

// Worker is one table's share of the shunt: a splice.Shunt. Its methods are called
// by one goroutine at a time, at the same time as those of other workers.
type Worker struct {
	shunt *Shunt
	index uint8
	fresh int32 // next of the places that nobody has had yet
	end   int32
	left  []leave // the others, in the order in which they were left
}

type leave struct {
	place int32
	at    time.Time
}

// Worker makes the share of worker i. It is to be called once for each.
func (s *Shunt) Worker(i int) *Worker {
	share := s.opts.Places / s.opts.Workers
	return &Worker{shunt: s, index: uint8(i), fresh: int32(i * share), end: int32((i + 1) * share)}
}

var _ splice.Shunt = (*Worker)(nil)

// Take implements splice.Shunt.
func (w *Worker) Take(p *splice.Path) (int32, bool) {
	s := w.shunt
	to := w.hub(p)
	if to == ([16]byte{}) {
		return 0, false
	}
	k := path(p, w.index)
	k.Seen = s.now()
	up, down := s.hashes(&k, &to)
	// A connection without room asks again with each segment: it must not use up the
	// places that wait for a moment until they are given away.
	if !s.room(up) || !s.room(down) {
		return 0, false
	}
	place, ok := w.take()
	if !ok {
		return 0, false
	}
	s.paths[place] = k
	if !s.enter(up, place) {
		w.giveBack(place)
		return 0, false
	}
	if !s.enter(down, place) {
		s.remove(up, place)
		w.giveBack(place)
		return 0, false
	}
	return place, true
}

// path is p as the program has it, of a worker's.
func path(p *splice.Path, worker uint8) shuntPath {
	k := shuntPath{
		Client: p.Client, Server: p.Server, ClientPort: network(p.ClientPort), ServerPort: network(p.ServerPort), HubPort: network(p.HubPort),
		Worker: worker, Up: p.Up, Down: p.Down, Clock: p.Clock, Mss: p.MSS, Left: p.Left, Right: p.Right, Scale: p.Scale,
		Next: p.Next, Acked: p.Acked, Stamp: p.Stamp, Window: p.Window,
	}
	if p.SACK {
		k.Bits |= bitSACK
	}
	if p.Stamps {
		k.Bits |= bitStamps
	}
	return k
}

// hub is the stack's address of a path's family; zero: it has none.
func (w *Worker) hub(p *splice.Path) [16]byte {
	a := w.shunt.opts.Hub6
	if is4(&p.Client) {
		a = w.shunt.opts.Hub4
	}
	if !a.IsValid() {
		return [16]byte{}
	}
	return a.As16()
}

// is4 says that an address is a mapped one of IPv4.
func is4(a *[16]byte) bool {
	return [12]byte(a[:12]) == [12]byte{10: 0xff, 11: 0xff}
}

// take finds a place that the program does not look at.
func (w *Worker) take() (int32, bool) {
	if w.fresh < w.end {
		w.fresh++
		return w.fresh - 1, true
	}
	if len(w.left) == 0 || time.Since(w.left[0].at) < grace {
		return 0, false
	}
	place := w.left[0].place
	w.left = w.left[1:]
	return place, true
}

func (w *Worker) giveBack(place int32) { w.left = append(w.left, leave{place, time.Now()}) }

// Trace implements splice.Shunt.
func (w *Worker) Trace(place int32) splice.Trace {
	k := &w.shunt.paths[place]
	t := splice.Trace{Window: k.Window}
	for i := range 2 {
		t.Next[i], t.Acked[i], t.Stamp[i] = atomic.LoadUint32(&k.Next[i]), atomic.LoadUint32(&k.Acked[i]), atomic.LoadUint32(&k.Stamp[i])
	}
	seen := atomic.LoadUint32(&k.Seen)
	if age := int32(w.shunt.now() - seen); age > 0 { // a segment may have come since
		t.Quiet = time.Duration(age) << tick
	}
	return t
}

// Tell implements splice.Shunt. What the program notes at the same moment, on
// another processor, may be lost or win: both are true.
func (w *Worker) Tell(place int32, all *splice.Trace) {
	k := &w.shunt.paths[place]
	for i := range 2 {
		atomic.StoreUint32(&k.Next[i], all.Next[i])
		atomic.StoreUint32(&k.Acked[i], all.Acked[i])
		atomic.StoreUint32(&k.Stamp[i], all.Stamp[i])
	}
	k.Window = all.Window
}

// Ending implements splice.Shunt.
func (w *Worker) Ending(place int32, client bool) {
	if client {
		w.shunt.paths[place].Bits |= bitClientEnds
		return
	}
	w.shunt.paths[place].Bits |= bitServerEnds
}

// Leave implements splice.Shunt.
func (w *Worker) Leave(place int32) {
	k := &w.shunt.paths[place]
	to := w.shunt.opts.Hub6
	if is4(&k.Client) {
		to = w.shunt.opts.Hub4
	}
	hub := to.As16()
	up, down := w.shunt.hashes(k, &hub)
	w.shunt.remove(up, place)
	w.shunt.remove(down, place)
	w.giveBack(place)
}

// Passed implements splice.Shunt.
func (w *Worker) Passed() splice.Passed {
	var each []shuntPassed
	if w.shunt.objects.Counts.Lookup(uint32(w.index), &each) != nil {
		return splice.Passed{}
	}
	var sum splice.Passed
	for _, c := range each {
		for i := range 2 {
			sum.Packets[i] += c.Packets[i]
			sum.Bytes[i] += c.Bytes[i]
		}
	}
	return sum
}

// hashes are those of a path's packets to the server, and to the client.
func (s *Shunt) hashes(k *shuntPath, hub *[16]byte) (up, down uint32) {
	return s.hash(&k.Client, &k.Server, k.ClientPort, k.ServerPort), s.hash(&k.Server, hub, k.ServerPort, k.HubPort)
}

// hash is find's in bpf/path.h.
func (s *Shunt) hash(from, to *[16]byte, source, dest uint16) uint32 {
	h, a, b := s.seed, fourWords(from), fourWords(to)
	for i := range a {
		h = mix(mix(h, a[i]), b[i])
	}
	return finish(mix(h, twoHalves(source, dest)))
}

// mix and finish are those of MurmurHash3.
func mix(h, word uint32) uint32 {
	h ^= bits.RotateLeft32(word*0xcc9e2d51, 15) * 0x1b873593
	return bits.RotateLeft32(h, 13)*5 + 0xe6546b64
}

func finish(h uint32) uint32 {
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}

// enter lets a hash lead to a place; false says that its bucket is full.
func (s *Shunt) enter(hash uint32, place int32) bool {
	e := s.buckets[hash&uint32(len(s.buckets)-1)].Entries[:]
	for i := range e {
		if atomic.CompareAndSwapUint32(&e[i], 0, entry(hash, place)) {
			return true
		}
	}
	return false
}

// room says that a hash's bucket is not full. Other workers may fill it meanwhile.
func (s *Shunt) room(hash uint32) bool {
	e := s.buckets[hash&uint32(len(s.buckets)-1)].Entries[:]
	for i := range e {
		if atomic.LoadUint32(&e[i]) == 0 {
			return true
		}
	}
	return false
}

func (s *Shunt) remove(hash uint32, place int32) {
	e := s.buckets[hash&uint32(len(s.buckets)-1)].Entries[:]
	for i := range e {
		if atomic.CompareAndSwapUint32(&e[i], entry(hash, place), 0) {
			return
		}
	}
}

func entry(hash uint32, place int32) uint32 {
	return hash>>placeBits<<placeBits | uint32(place+1)
}
