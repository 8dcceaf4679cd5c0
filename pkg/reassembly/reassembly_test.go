package reassembly

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"hawser/pkg/buffer"
)

const noLimit = 1 << 40

func drain(s *Stream) []byte {
	var out []byte
	for {
		seg, ok := s.Next(nil)
		if !ok {
			return out
		}
		out = append(out, seg.P...)
		seg.Release()
	}
}

func TestOrder(t *testing.T) {
	type in struct {
		off uint64
		p   string
	}
	for _, c := range []struct {
		name string
		in   []in
		want string
		held int
		dups uint64
	}{
		{"in order", []in{{0, "abc"}, {3, "def"}}, "abcdef", 0, 0},
		{"swapped", []in{{3, "def"}, {0, "abc"}}, "abcdef", 0, 0},
		{"gap", []in{{3, "def"}}, "", 3, 0},
		{"twice", []in{{0, "abc"}, {0, "abc"}}, "abc", 0, 3},
		{"overlap at the front", []in{{0, "abc"}, {2, "cdef"}}, "abcdef", 0, 1},
		{"overlap at the back", []in{{3, "def"}, {0, "abcd"}}, "abcdef", 0, 1},
		{"covers a stored one", []in{{2, "cd"}, {0, "abcdef"}}, "abcdef", 0, 2},
		{"covers two stored", []in{{1, "b"}, {3, "d"}, {0, "abcdef"}}, "abcdef", 0, 2},
		{"inside a stored one", []in{{1, "bcdef"}, {2, "c"}, {0, "a"}}, "abcdef", 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s Stream
			for _, i := range c.in {
				if err := s.Insert(nil, i.off, buffer.Copy([]byte(i.p)), false, noLimit); err != nil {
					t.Fatal(err)
				}
			}
			if got := string(drain(&s)); got != c.want || s.Held() != c.held || s.Duplicates() != c.dups {
				t.Fatalf("got %q, held %d, duplicates %d; want %q, %d, %d", got, s.Held(), s.Duplicates(), c.want, c.held, c.dups)
			}
			s.Drop()
		})
	}
}

// TestOverlapsWhatHasLeft: of a piece that begins before what left last, what is new counts.
func TestOverlapsWhatHasLeft(t *testing.T) {
	var s Stream
	for _, in := range []struct {
		off     uint64
		p, want string
		dups    uint64
	}{{0, "abc", "abc", 0}, {2, "cdef", "def", 1}, {0, "abcdef", "", 7}, {0, "abcdefg", "g", 13}, {7, "h", "h", 13}} {
		if err := s.Insert(nil, in.off, buffer.Copy([]byte(in.p)), false, noLimit); err != nil {
			t.Fatal(err)
		}
		if got := string(drain(&s)); got != in.want || s.Duplicates() != in.dups {
			t.Errorf("%q at %d: %q left and %d came twice, want %q and %d", in.p, in.off, got, s.Duplicates(), in.want, in.dups)
		}
	}
}

func TestFinAndLimits(t *testing.T) {
	before := buffer.Live()
	defer func() {
		if d := buffer.Live() - before; d != 0 { // what is refused is released, too
			t.Errorf("%d bytes of buffers leaked", d)
		}
	}()
	var s Stream
	put := func(off uint64, p string, fin bool, limit uint64) error {
		return s.Insert(nil, off, buffer.Copy([]byte(p)), fin, limit)
	}
	if err := put(0, "abcd", false, 3); !errors.Is(err, ErrBeyondCredit) {
		t.Fatalf("beyond the credit: %v", err)
	}
	if err := put(2, "c", true, 3); err != nil || s.Ended() {
		t.Fatalf("early fin: %v, ended %v", err, s.Ended())
	}
	if err := put(0, "ab", true, 9); !errors.Is(err, ErrFinMoved) {
		t.Fatalf("second end: %v", err)
	}
	if err := put(3, "d", false, 9); !errors.Is(err, ErrFinMoved) {
		t.Fatalf("data after the end: %v", err)
	}
	if err := put(0, "ab", false, 9); err != nil || string(drain(&s)) != "abc" || !s.Ended() {
		t.Fatalf("whole: %v, ended %v", err, s.Ended())
	}
	if err := put(3, "", true, 9); err != nil {
		t.Fatalf("fin again: %v", err)
	}
	var early Stream // a lone chunk lies beyond the end that comes then
	if err := early.Insert(nil, 5, buffer.Copy([]byte("fg")), false, 9); err != nil {
		t.Fatal(err)
	}
	if err := early.Insert(nil, 2, buffer.Copy([]byte("c")), true, 9); !errors.Is(err, ErrFinMoved) {
		t.Fatalf("an end before what has come: %v", err)
	}
	early.Drop()
	s.Rewind(1)
	if err := put(1, "bc", true, 9); err != nil || string(drain(&s)) != "bc" || !s.Ended() {
		t.Fatalf("after a rewind: %v", err)
	}
}

// TestRewindForgets: what was held beyond the place to which a stream goes back may be forged,
// and comes anew.
func TestRewindForgets(t *testing.T) {
	before := buffer.Live()
	var s Stream
	put := func(off uint64, p string) {
		t.Helper()
		must(t, s.Insert(nil, off, buffer.Copy([]byte(p)), false, noLimit))
	}
	put(0, "abc")
	drain(&s)
	put(5, "XX")
	s.Rewind(3)
	if s.Held() != 0 || buffer.Live() != before {
		t.Errorf("%d bytes are held after a rewind, %d of slabs", s.Held(), buffer.Live()-before)
	}
	put(3, "defgh")
	if got := string(drain(&s)); got != "defgh" {
		t.Errorf("%q after a rewind", got)
	}
}

// TestBareEnds: an end without bytes may come behind all that was there, behind what waits
// for a gap, and alone; then nothing more may come.
func TestBareEnds(t *testing.T) {
	for _, before := range []string{"", "all left", "held"} {
		var s Stream
		put := func(off uint64, p string, fin bool) error {
			return s.Insert(nil, off, buffer.Copy([]byte(p)), fin, noLimit)
		}
		end := uint64(0)
		switch before {
		case "all left":
			must(t, put(0, "abc", false))
			drain(&s)
			end = 3
		case "held":
			must(t, put(3, "def", false))
			end = 6
		}
		if err := put(end, "", true); err != nil || s.Ended() != (before != "held") {
			t.Errorf("%q: an end at %d: %v, ended %v", before, end, err, s.Ended())
		}
		if err := put(end, "x", false); !errors.Is(err, ErrFinMoved) {
			t.Errorf("%q: a byte behind the end at %d: %v", before, end, err)
		}
		if before == "held" {
			must(t, put(0, "abc", false))
			if got := string(drain(&s)); got != "abcdef" || !s.Ended() {
				t.Errorf("%q: %q, ended %v", before, got, s.Ended())
			}
		}
	}
}

// TestRandom sends a stream in random cuts, orders and copies over and over, and takes
// what is in order at once or now and then.
func TestRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	before := buffer.Live()
	for k := range 300 {
		want := make([]byte, 1+r.IntN(5000))
		for i := range want {
			want[i] = byte(r.Uint32())
		}
		var s Stream
		var got []byte
		for !s.Ended() {
			from := r.IntN(len(want) + 1)
			to := min(len(want), from+r.IntN(700))
			if err := s.Insert(nil, uint64(from), buffer.Copy(want[from:to]), to == len(want), uint64(len(want))); err != nil {
				t.Fatal(err)
			}
			if r.IntN(1+k%20) == 0 {
				got = append(got, drain(&s)...)
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatal("bytes differ")
		}
		s.Drop()
	}
	if d := buffer.Live() - before; d != 0 {
		t.Fatalf("%d bytes of buffers leaked", d)
	}
}

// TestManyChunks: what has waited behind one gap leaves in a time that grows with how many
// chunks that were, not with their square: a flow of small messages has tens of thousands
// when a link is silent for a moment. So it is where others come while they leave.
func TestManyChunks(t *testing.T) {
	const n = 100_000
	before, begin := buffer.Live(), time.Now()
	slab := buffer.Get(1)
	var s Stream
	put := func(off int) {
		slab.Retain()
		if err := s.Insert(nil, uint64(off), slab.Seg(0, 1), false, noLimit); err != nil {
			t.Fatal(err)
		}
	}
	take := func(want uint64) {
		seg, ok := s.Next(nil)
		if !ok || s.Offset() != want {
			t.Fatalf("at %d, %v, want %d", s.Offset(), ok, want)
		}
		seg.Release()
	}
	for i := 1; i < n; i++ {
		put(i)
	}
	if _, ok := s.Next(nil); ok {
		t.Fatal("the gap is not closed yet")
	}
	put(0)
	for i := range n {
		take(uint64(i) + 1)
		put(n + i)
	}
	for i := range n {
		take(n + uint64(i) + 1)
	}
	if s.Held() != 0 || len(s.chunks) != 0 {
		t.Errorf("%d bytes, %d chunks are held", s.Held(), len(s.chunks))
	}
	slab.Release()
	if buffer.Live() != before {
		t.Error("slabs are left")
	}
	if took := time.Since(begin); took > 5*time.Second { // it takes less than a tenth, and took half a minute
		t.Errorf("it took %v", took)
	}
}

// FuzzInsert: any sequence of inserts delivers a prefix of the stream, once.
func FuzzInsert(f *testing.F) {
	f.Add([]byte{0, 3, 2, 5, 1, 9})
	f.Fuzz(func(t *testing.T, ops []byte) {
		before := buffer.Live()
		var s Stream
		at := 0
		for i := 0; i+1 < len(ops); i += 2 {
			p := make([]byte, int(ops[i+1])%32)
			for j := range p {
				p[j] = ops[i] + byte(j)
			}
			_ = s.Insert(nil, uint64(ops[i]), buffer.Copy(p), ops[i+1]&0x80 != 0, 200)
			for _, b := range drain(&s) {
				if b != byte(at) {
					t.Fatalf("byte %d is %d", at, b)
				}
				at++
			}
		}
		s.Drop()
		if buffer.Live() != before {
			t.Fatal("buffers leaked")
		}
	})
}

// TestRestKeepsNoTable: a stream in motion allocates nothing, in order or not, and one
// that holds nothing keeps nothing, however many there were in line at once.
func TestRestKeepsNoTable(t *testing.T) {
	var tables Tables
	var streams [3 * spareMost]Stream
	seg := buffer.Copy(make([]byte, 8))
	defer seg.Release()
	var off uint64
	move := func() {
		for i := range streams {
			for _, at := range []uint64{8, 16, 0} {
				if err := streams[i].Insert(&tables, off+at, seg.Share(), false, noLimit); err != nil {
					t.Fatal(err)
				}
			}
			for {
				out, ok := streams[i].Next(&tables)
				if !ok {
					break
				}
				out.Release()
			}
		}
		off += 24
	}
	if n := testing.AllocsPerRun(10, move); n > 0 {
		t.Errorf("%.0f allocations for chunks of %d streams", n, len(streams))
	}
	for i := range streams {
		if streams[i].Offset() != off || streams[i].chunks != nil {
			t.Fatalf("stream %d: at %d, %d chunks have room, want %d and none", i, streams[i].Offset(), cap(streams[i].chunks), off)
		}
	}
	for i := range streams { // all hold something at the same time
		must(t, streams[i].Insert(&tables, off+8, seg.Share(), false, noLimit))
	}
	for i := range streams {
		must(t, streams[i].Insert(&tables, off, seg.Share(), false, noLimit))
		for range 2 {
			out, ok := streams[i].Next(&tables)
			if !ok {
				t.Fatalf("stream %d has nothing", i)
			}
			out.Release()
		}
	}
	if n := len(tables.spare); n != spareMost {
		t.Errorf("%d tables are spared, want %d", n, spareMost)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
