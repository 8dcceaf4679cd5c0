package shunt

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"hawser/pkg/splice"
)

var hub4 = netip.MustParseAddr("198.19.255.2")

// bare is a shunt without a program; places are a power of two.
func bare(places, workers int) *Shunt {
	return &Shunt{
		paths: make([]shuntPath, places), buckets: make([]shuntBucket, places*4/perBucket),
		opts: Options{Hub4: hub4, Workers: workers, Places: places}, start: time.Now(),
	}
}

// numbered is a path that differs from others.
func numbered(i int) *splice.Path {
	addr := func(n int) [16]byte { return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}).As16() }
	return &splice.Path{Client: addr(i), Server: addr(1 << 20), ClientPort: uint16(i), ServerPort: 443, HubPort: uint16(40000 + i)}
}

// entries counts what leads to places.
func (s *Shunt) entries() (n int) {
	for i := range s.buckets {
		for _, e := range s.buckets[i].Entries {
			if e != 0 {
				n++
			}
		}
	}
	return n
}

// TestPlaces: each connection has a place of its own, nearly all find one, and a
// place is not given away at once: the program may be looking at it.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 4096
		s := bare(places, 1)
		w := s.Worker(0)
		taken := map[int32]bool{}
		for i := range places {
			if place, ok := w.Take(numbered(i)); ok {
				if taken[place] {
					t.Fatalf("place %d is given away twice", place)
				}
				taken[place] = true
			}
		}
		if len(taken) < places*95/100 || s.entries() != 2*len(taken) {
			t.Errorf("%d of %d connections have a place, %d entries", len(taken), places, s.entries())
		}
		for place := range taken {
			w.Leave(place)
		}
		if n := s.entries(); n != 0 {
			t.Errorf("%d entries are left", n)
		}
		for i := range places { // those that nobody has had yet are free
			if place, ok := w.Take(numbered(i)); ok && taken[place] {
				t.Fatal("a place is given away that has just been left")
			} else if ok {
				w.Leave(place)
			}
		}
		time.Sleep(grace)
		again := map[int32]bool{}
		for i := range len(taken) {
			if place, ok := w.Take(numbered(places + i)); ok {
				again[place] = true
			}
		}
		if len(again) < len(taken)*95/100 {
			t.Errorf("%d of %d places are used again", len(again), len(taken))
		}
	})
}

// TestFullBucket: a connection that finds no room in its bucket asks again at each of its
// segments, and takes no place from others.
func TestFullBucket(t *testing.T) {
	for _, full := range []string{"up", "down"} {
		s := bare(64, 1)
		w, p := s.Worker(0), numbered(0)
		hub := w.hub(p)
		k := path(p, 0)
		h, down := s.hashes(&k, &hub)
		if full == "down" {
			h = down
		}
		for range perBucket {
			s.enter(h, 0)
		}
		for range 1000 {
			if _, ok := w.Take(p); ok {
				t.Fatal("there was room")
			}
		}
		if n := s.entries(); n != perBucket {
			t.Errorf("%s: %d entries are left of %d", full, n, perBucket)
		}
		found := 0
		for i := range 20 {
			if _, ok := w.Take(numbered(i + 1)); ok {
				found++
			}
		}
		if found < 10 {
			t.Errorf("%s: %d of 20 other connections find a place", full, found)
		}
	}
}

// TestWorkers: workers share the buckets, and nothing gets lost.
func TestWorkers(t *testing.T) {
	const workers, each = 4, 512
	s := bare(workers*each*2, workers)
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := map[int32]int{}
	for i := range workers {
		w := s.Worker(i)
		wg.Go(func() {
			for j := range each {
				place, ok := w.Take(numbered(i*each + j))
				if ok && j%2 == 0 {
					w.Leave(place)
				} else if ok {
					mu.Lock()
					taken[place]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(taken) < workers*each/2*95/100 || s.entries() != 2*len(taken) {
		t.Errorf("%d places taken, %d entries", len(taken), s.entries())
	}
	for place, n := range taken {
		if n != 1 || s.paths[place].Worker != uint8(int(place)/(each*2)) {
			t.Errorf("place %d of worker %d taken %d times", place, s.paths[place].Worker, n)
		}
	}
}

// TestFamily: a family that the stack has no address of is not carried.
func TestFamily(t *testing.T) {
	p := numbered(1)
	p.Client, p.Server = netip.MustParseAddr("fd00::1").As16(), netip.MustParseAddr("fd00::2").As16()
	if _, ok := bare(16, 1).Worker(0).Take(p); ok {
		t.Error("a connection over IPv6 was taken")
	}
}

// TestSize: what a connection takes in the maps, of the 256 bytes that it may
// take altogether (splice.TestMemory).
func TestSize(t *testing.T) {
	n := unsafe.Sizeof(shuntPath{}) + unsafe.Sizeof(shuntBucket{})*4/perBucket
	if n != 112 || unsafe.Sizeof(shuntPath{})%8 != 0 {
		t.Errorf("a connection takes %d bytes", n)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Workers: 257}, {Workers: 2, Places: 1}, {Workers: 1, Places: 1 << 20}} {
		if s, err := New(o); err == nil {
			t.Errorf("%+v: no error", o)
			s.Close()
		}
	}
	// Whatever was loaded by then is unloaded.
	if s, err := New(Options{Hub: 1 << 30, Workers: 1}); err == nil || s != nil {
		t.Errorf("on a hub that is not there: %v, %v", s, err)
	}
}
