package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
)

// bytesSource serves a byte string in pieces of at most piece bytes.
type bytesSource struct {
	data  []byte
	piece func() int
	calls int
}

func (s *bytesSource) readv(bufs [][]byte, try bool) (int, error) {
	s.calls++
	if len(s.data) == 0 {
		if try {
			return 0, nil
		}
		return 0, io.EOF
	}
	left, total := min(s.piece(), len(s.data)), 0
	for _, b := range bufs {
		n := copy(b[:min(len(b), left-total)], s.data)
		s.data = s.data[n:]
		total += n
	}
	return total, nil
}

func all() int { return 1 << 30 }

// encode seals records as a sender would.
func encode(t testing.TB, s *sealer, records ...wire.Record) []byte {
	t.Helper()
	var out []byte
	for _, rec := range records {
		out = append(out, encodeOne(t, s, rec)...)
	}
	return out
}

func encodeOne(t testing.TB, s *sealer, rec wire.Record) []byte {
	t.Helper()
	prefix := binary.BigEndian.AppendUint16(nil, uint16(len(rec.Block)+tagSize))
	prefix = binary.BigEndian.AppendUint16(prefix, uint16(rec.Body.Len()))
	out, err := s.seal(bytes.Clone(prefix), prefix, rec.Block)
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, rec.Body.P...)
	rec.Body.Release()
	return out
}

func readerOf(t testing.TB, data []byte, piece func() int) *recordReader {
	return newRecordReader(&bytesSource{data: data, piece: piece}, testSealer(t, 1, RekeyRecords))
}

// next returns the next record as a Conn would.
func next(r *recordReader) (wire.Record, error) {
	if _, err := r.ready(false); err != nil {
		return wire.Record{}, err
	}
	return r.take(), nil
}

// TestReaderCutsAnyStream reads random records out of a stream that arrives in
// pieces of every kind, with and without trying first.
func TestReaderCutsAnyStream(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 0, 1, 100, buffer.Small, bulkBody, 8 << 10, 16 << 10, wire.MaxBody}
	pieces := map[string]func() int{
		"all":    all,
		"byte":   func() int { return 1 },
		"random": func() int { return 1 + rng.IntN(20000) },
		"packet": func() int { return 1448 },
	}
	for name, piece := range pieces {
		t.Run(name, func(t *testing.T) {
			var want [][2]int
			var records []wire.Record
			for i := range 60 {
				block, body := 1+rng.IntN(200), sizes[rng.IntN(len(sizes))]
				if i%20 == 7 {
					block = wire.MaxBlock
				}
				want = append(want, [2]int{block, body})
				records = append(records, record(i, block, body))
			}
			r := readerOf(t, encode(t, testSealer(t, 1, RekeyRecords), records...), piece)
			for i, w := range want {
				if i%3 == 0 {
					_, _ = r.ready(true)
				}
				rec, err := next(r)
				if err != nil {
					t.Fatalf("record %d: %v", i, err)
				}
				if i%2 == 0 { // the next record may arrive before this one is looked at
					_, _ = r.ready(true)
				}
				if len(rec.Block) != w[0] || !samePattern(rec.Block, i) {
					t.Fatalf("record %d: wrong block", i)
				}
				if rec.Body.Len() != w[1] || w[1] > 0 && !samePattern(rec.Body.P, i+1) {
					t.Fatalf("record %d: wrong body", i)
				}
				rec.Body.Release()
			}
			if _, err := next(r); !errors.Is(err, ErrPeerClosed) {
				t.Fatalf("at the end: %v", err)
			}
		})
	}
}

// TestBulkIsReadInPlace holds the copying of a bulk stream to what the package
// promises: one system call per record, no more than headSpare copied, and the same
// where headers have an acknowledgement more than the last, or a read ends within a body.
func TestBulkIsReadInPlace(t *testing.T) {
	const n = 100
	for _, piece := range []int{1 << 30, 15 << 10} {
		var records []wire.Record
		for i := range n {
			records = append(records, record(i, 40+i%2*20, 16<<10))
		}
		src := &bytesSource{data: encode(t, testSealer(t, 1, RekeyRecords), records...), piece: func() int { return piece }}
		most := (len(src.data)+piece-1)/piece + n + 2 // a piece ends a read, and so does a body
		r := newRecordReader(src, testSealer(t, 1, RekeyRecords))
		for i := range n {
			rec, err := next(r)
			if err != nil {
				t.Fatal(err)
			}
			if ahead := r.to - r.from; ahead > prefixSize+40+tagSize+20+headSpare {
				t.Fatalf("pieces of %d bytes: %d bytes read ahead of record %d", piece, ahead, i+1)
			}
			rec.Body.Release()
		}
		if src.calls > most {
			t.Errorf("pieces of %d bytes: %d reads for %d records, may be %d", piece, src.calls, n, most)
		}
	}
}

// TestSmallRecordsShareReads: control records come many to a read.
func TestSmallRecordsShareReads(t *testing.T) {
	const n = 1000
	var records []wire.Record
	for i := range n {
		records = append(records, record(i, 30, 0))
	}
	src := &bytesSource{data: encode(t, testSealer(t, 1, RekeyRecords), records...), piece: all}
	r := newRecordReader(src, testSealer(t, 1, RekeyRecords))
	for range n {
		if _, err := next(r); err != nil {
			t.Fatal(err)
		}
	}
	if src.calls > n/50 {
		t.Errorf("%d reads for %d records of 50 bytes", src.calls, n)
	}
}

// TestEveryBitCounts flips each bit of prefix and block of the second of four
// records. The first must arrive, none after it, and the reader must say why.
func TestEveryBitCounts(t *testing.T) {
	stream := func() ([]byte, int, int) {
		s := testSealer(t, 1, RekeyRecords)
		first := encode(t, s, record(0, 20, 100))
		second := encode(t, s, record(1, 60, 500))
		rest := encode(t, s, record(2, 4000, 16<<10), record(3, 10, wire.MaxBody))
		return append(append(bytes.Clone(first), second...), rest...), len(first), prefixSize + 60 + tagSize
	}
	data, at, header := stream()
	for bit := range header * 8 {
		flipped := bytes.Clone(data)
		flipped[at+bit/8] ^= 1 << (bit % 8)
		for _, piece := range []func() int{all, func() int { return 700 }} {
			r := readerOf(t, flipped, piece)
			rec, err := next(r)
			if err != nil || !samePattern(rec.Block, 0) {
				t.Fatalf("bit %d: the record before the change: %v", bit, err)
			}
			rec.Body.Release()
			_, err = next(r)
			if !errors.Is(err, ErrTampered) && !errors.Is(err, ErrRecord) {
				t.Fatalf("bit %d: %v", bit, err)
			}
			if _, again := next(r); !errors.Is(again, err) {
				t.Fatalf("bit %d: the reader went on: %v", bit, again)
			}
		}
	}
}

// TestStreamSurgery repeats, drops, swaps and cuts whole records.
func TestStreamSurgery(t *testing.T) {
	s := testSealer(t, 1, RekeyRecords)
	var parts [][]byte
	for i := range 4 {
		parts = append(parts, encode(t, s, record(i, 30+i, 1000)))
	}
	foreign := encode(t, testSealer(t, 9, RekeyRecords), record(0, 30, 1000))
	for name, c := range map[string]struct {
		order []byte // parts by index; 9 is the foreign one
		good  int
		want  error
	}{
		"untouched":        {[]byte{0, 1, 2, 3}, 4, ErrPeerClosed},
		"replay":           {[]byte{0, 1, 1, 2}, 2, ErrTampered},
		"replay of first":  {[]byte{0, 1, 2, 0}, 3, ErrTampered},
		"swap":             {[]byte{0, 2, 1, 3}, 1, ErrTampered},
		"first is missing": {[]byte{1, 2, 3}, 0, ErrTampered},
		"one is missing":   {[]byte{0, 1, 3}, 2, ErrTampered},
		"other connection": {[]byte{9, 0}, 0, ErrTampered},
		"cut at a border":  {[]byte{0, 1}, 2, ErrPeerClosed},
	} {
		t.Run(name, func(t *testing.T) {
			var data []byte
			for _, i := range c.order {
				if i == 9 {
					data = append(data, foreign...)
					continue
				}
				data = append(data, parts[i]...)
			}
			r := readerOf(t, data, all)
			for range c.good {
				rec, err := next(r)
				if err != nil {
					t.Fatal(err)
				}
				rec.Body.Release()
			}
			if _, err := next(r); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
	whole := bytes.Join(parts[:1], nil)
	for n := 1; n < len(whole); n += 13 {
		if _, err := next(readerOf(t, whole[:n], all)); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestReaderLimits(t *testing.T) {
	for name, prefix := range map[string][2]int{
		"no block":       {0, 0},
		"empty block":    {tagSize, 10},
		"block too long": {maxSealed + 1, 0},
		"body too long":  {tagSize + 1, wire.MaxBody + 1},
	} {
		data := binary.BigEndian.AppendUint16(nil, uint16(prefix[0]))
		data = binary.BigEndian.AppendUint16(data, uint16(prefix[1]))
		r := readerOf(t, append(data, make([]byte, 40000)...), all)
		if _, err := next(r); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeysChangeInStep runs through many key changes, and shows that the keys
// do change.
func TestKeysChangeInStep(t *testing.T) {
	const every = 4
	out, in := testSealer(t, 1, every), testSealer(t, 1, every)
	still := testSealer(t, 1, RekeyRecords)
	for i := range 10 * every {
		prefix, block := []byte{0, 19, 0, 0}, []byte{1, 2, 3}
		sealed, err := out.seal(nil, prefix, block)
		if err != nil {
			t.Fatal(err)
		}
		same, _ := still.seal(nil, prefix, block)
		if first := i < every; bytes.Equal(sealed, same) != first {
			t.Fatalf("record %d: key of the first epoch in use: %v", i, !first)
		}
		got, err := in.open(prefix, sealed)
		if err != nil || !bytes.Equal(got, block) {
			t.Fatalf("record %d: %v", i, err)
		}
	}
}

// TestRekeyPositionIsExact: an end that changes its key a record too early or
// too late is not understood.
func TestRekeyPositionIsExact(t *testing.T) {
	for _, other := range []uint64{3, 5} {
		out, in := testSealer(t, 1, 4), testSealer(t, 1, other)
		var failed bool
		for range 6 {
			sealed, _ := out.seal(nil, []byte{0, 0, 0, 0}, []byte{1})
			if _, err := in.open([]byte{0, 0, 0, 0}, sealed); err != nil {
				failed = true
				break
			}
		}
		if !failed {
			t.Errorf("keys of %d and 4 records agreed", other)
		}
	}
}

// FuzzReader feeds arbitrary streams, and valid ones with a mutation behind
// the first record. Nothing but the untouched records may come out.
func FuzzReader(f *testing.F) {
	f.Add([]byte{}, uint16(1), uint16(0), byte(0))
	f.Add(encode(f, testSealer(f, 1, RekeyRecords), record(5, 30, 900)), uint16(700), uint16(3), byte(1))
	f.Add([]byte{0, 17, 0, 0}, uint16(9), uint16(12000), byte(0x80))
	f.Fuzz(func(t *testing.T, noise []byte, piece, at uint16, change byte) {
		step := func() int { return int(piece) + 1 }
		r := readerOf(t, noise, step)
		for {
			rec, err := next(r)
			if err != nil {
				break
			}
			// Only the stream's own seed is sealed with the key.
			if !samePattern(rec.Block, 5) {
				t.Fatal("a forged block was accepted")
			}
			rec.Body.Release()
		}
		s := testSealer(t, 1, RekeyRecords)
		first := encode(t, s, record(0, 40, 3000))
		second := encode(t, s, record(1, 50, 5000), record(2, 2000, 16000))
		second[int(at)%len(second)] ^= change
		r = readerOf(t, append(first, second...), step)
		for i := 0; ; i++ {
			rec, err := next(r)
			if err != nil {
				if i == 0 {
					t.Fatalf("the untouched record: %v", err)
				}
				break
			}
			if !samePattern(rec.Block, i) {
				t.Fatalf("block %d is wrong", i)
			}
			rec.Body.Release()
		}
	})
}
