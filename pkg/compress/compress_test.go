package compress

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"hawser/pkg/buffer"
)

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func prose(seed uint64, n int) []byte {
	words := []string{"the ", "relay ", "card ", "sealed ", "of ", "a ", "link ", "bytes ", "{\"id\": ", "flow\n"}
	r := rand.New(rand.NewPCG(seed, 2))
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[r.IntN(len(words))])
		fmt.Fprintf(&b, "%d", r.IntN(1000))
	}
	return b.Bytes()[:n]
}

func newCoder(t testing.TB) *Coder {
	c, err := NewCoder()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRoundTrip(t *testing.T) {
	c := newCoder(t)
	dst, back := make([]byte, Room), make([]byte, buffer.Most)
	for _, codec := range []Codec{S2, Zstd} {
		for _, n := range []int{128, 129, 1000, 1024, 1025, 2048, 5000, 16383, 16384} {
			block := prose(uint64(n), n)
			m, ok := c.Compress(dst, block, codec)
			if !ok && n < 1000 {
				continue
			}
			if !ok {
				t.Fatalf("%v: prose of %d bytes not compressed", codec, n)
			}
			k, err := c.Decompress(back, dst[:m], codec)
			if err != nil || !bytes.Equal(back[:k], block) {
				t.Fatalf("%v %d bytes: came back as %d bytes, %v", codec, n, k, err)
			}
			if n == 16384 && m > n*6/10 {
				t.Errorf("%v: 16 KB of prose took %d bytes", codec, m)
			}
		}
	}
}

func TestNotWorth(t *testing.T) {
	c := newCoder(t)
	dst := make([]byte, Room)
	for seed := range uint64(200) {
		n := Least + int(seed)*81
		if block := noise(seed, n); Worth(block) {
			t.Errorf("noise of %d bytes counts as compressible", n)
		}
	}
	for name, block := range map[string][]byte{
		"small": prose(1, Least-1), "empty": nil, "too large": prose(1, buffer.Most+1), "noise": noise(1, 9000),
		"noise in front of prose, sampled as noise": append(noise(9, 15900), prose(1, 40)...),
	} {
		for _, codec := range []Codec{S2, Zstd} {
			if n, ok := c.Compress(dst, block, codec); ok {
				t.Errorf("%s with %v: compressed to %d", name, codec, n)
			}
		}
	}
	if _, ok := c.Compress(dst, prose(1, 4096), None); ok {
		t.Error("codec none compressed")
	}
	if _, ok := c.Compress(dst[:Room-1], prose(1, 4096), S2); ok {
		t.Error("a destination that is too small was used")
	}
}

// Compression that saves too little is refused even where the sample says yes.
func TestSavingTooSmall(t *testing.T) {
	c := newCoder(t)
	block := noise(3, 16384)
	for i := range runs { // repetitive just where the sample looks
		step := (len(block) - sampled/runs) / (runs - 1)
		for j := range sampled / runs / 2 {
			block[i*step+j] = 7
		}
	}
	if !Worth(block) {
		t.Fatal("the sample should say yes")
	}
	if n, ok := c.Compress(make([]byte, Room), block, Zstd); ok {
		t.Errorf("kept although only %d of %d bytes were saved", len(block)-n, len(block))
	}
}

func TestDecompressBounds(t *testing.T) {
	c := newCoder(t)
	big := make([]byte, 1<<20)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer // a frame that does not tell its size
	w, err := zstd.NewWriter(&stream, zstd.WithWindowSize(16<<10))
	if err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if _, err := w.Write(big[:16<<10]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	two := enc.EncodeAll(big[:buffer.Most/2+1], nil)
	for _, k := range []struct {
		name   string
		codec  Codec
		packed []byte
		want   error
	}{
		{"s2 bomb", S2, s2.Encode(nil, big), ErrLarge},
		{"zstd bomb", Zstd, enc.EncodeAll(big, nil), ErrLarge},
		{"zstd bomb of unknown size", Zstd, stream.Bytes(), ErrLarge},
		{"two zstd frames", Zstd, append(two, two...), ErrLarge},
		{"s2 empty", S2, s2.Encode(nil, nil), ErrCorrupt},
		{"s2 nothing", S2, nil, ErrCorrupt},
		{"zstd nothing", Zstd, nil, ErrCorrupt},
		{"s2 cut", S2, s2.Encode(nil, prose(1, 5000))[:900], ErrCorrupt},
		{"zstd cut", Zstd, enc.EncodeAll(prose(1, 5000), nil)[:900], ErrCorrupt},
		{"no codec", None, []byte("plain"), ErrCorrupt},
		{"unknown codec", 7, []byte("plain"), ErrCorrupt},
	} {
		if n := Size(k.packed, k.codec); n < 0 || n > buffer.Most {
			t.Errorf("%s: claims %d bytes", k.name, n)
		}
		n, err := c.Decompress(make([]byte, 48<<10), k.packed, k.codec)
		if !errors.Is(err, k.want) || n != 0 {
			t.Errorf("%s: %d bytes, error %v, want %v", k.name, n, err, k.want)
		}
	}
	for codec, packed := range map[Codec][]byte{S2: s2.Encode(nil, big[:200]), Zstd: enc.EncodeAll(big[:200], nil)} {
		if _, err := c.Decompress(make([]byte, 100), packed, codec); !errors.Is(err, ErrLarge) {
			t.Errorf("%v: into a destination that is too small: %v", codec, err)
		}
	}
}

// TestOlderPeers: who takes blocks of buffer.Plain at most, as all did before version 5 of
// the protocol, can decompress such a block.
func TestOlderPeers(t *testing.T) {
	c, dst := newCoder(t), make([]byte, Room)
	old, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(buffer.Plain), zstd.WithDecoderMaxWindow(buffer.Plain), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	for _, size := range []int{1000, 9000, buffer.Plain} {
		block := prose(1, size)
		n, ok := c.Compress(dst, block, Zstd)
		if !ok {
			t.Fatalf("%d bytes were not packed", size)
		}
		if claimed := Size(dst[:n], Zstd); claimed != size {
			t.Errorf("a block of %d bytes claims %d", size, claimed)
		}
		if out, err := old.DecodeAll(dst[:n], make([]byte, 0, buffer.Plain)); err != nil || !bytes.Equal(out, block) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestMemory(t *testing.T) {
	var m Memory
	for range misses {
		if !m.Try() {
			t.Fatal("a new flow is not tried")
		}
		m.Note(false)
	}
	for round := range 3 {
		for i := 1; i < retry; i++ {
			if m.Try() {
				t.Fatalf("round %d: block %d of a skipped flow is tried", round, i)
			}
		}
		if !m.Try() {
			t.Fatalf("round %d: a skipped flow is not tried again after %d blocks", round, retry)
		}
		if round < 2 {
			m.Note(false)
		}
	}
	m.Note(true)
	if !m.Try() {
		t.Error("a flow that compresses again is not tried")
	}
	m.Note(false)
	if m.Note(true); !m.Try() || m.missed != 0 {
		t.Error("one block that saved does not clear the misses")
	}
}

func TestChooser(t *testing.T) {
	var c Chooser
	now := time.Unix(1000, 0)
	feed := func(rate int, d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(10 * time.Millisecond) {
			c.Note(now, rate/100)
		}
	}
	if c.Codec() != Zstd {
		t.Error("an idle worker does not use zstd")
	}
	for _, k := range []struct {
		name string
		rate int
		want Codec
	}{
		{"thin uplinks", 8 << 20, Zstd}, {"busy", 100 << 20, S2}, {"between, from above", 12 << 20, S2},
		{"thin again", 5 << 20, Zstd}, {"between, from below", 12 << 20, Zstd},
	} {
		if feed(k.rate, time.Second); c.Codec() != k.want {
			t.Errorf("%s: %v, want %v", k.name, c.Codec(), k.want)
		}
	}
	c.Note(now, 4<<20)
	if c.Codec() != S2 {
		t.Error("a burst does not switch to s2 at once")
	}
	now = now.Add(time.Minute)
	if c.Note(now, 100); c.Codec() != Zstd {
		t.Error("a minute of silence does not end the busy time")
	}
}

func TestCodecNames(t *testing.T) {
	for c, want := range map[Codec]string{None: "none", S2: "s2", Zstd: "zstd", 3: "unknown"} {
		if c.String() != want || c.Valid() != (c != 3) {
			t.Errorf("codec %d: %q, valid %v", c, c, c.Valid())
		}
	}
}

func TestNoAllocation(t *testing.T) {
	c := newCoder(t)
	dst, back := make([]byte, Room), make([]byte, buffer.Most)
	block := prose(1, buffer.Plain)
	for _, codec := range []Codec{S2, Zstd} {
		run := func() {
			n, ok := c.Compress(dst, block, codec)
			if !ok {
				t.Fatal("not compressed")
			}
			if _, err := c.Decompress(back, dst[:n], codec); err != nil {
				t.Fatal(err)
			}
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 && !raceEnabled {
			t.Errorf("%v: %v allocations per block", codec, n)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	c := newCoder(f)
	dst := make([]byte, Room)
	for _, codec := range []Codec{S2, Zstd} {
		n, _ := c.Compress(dst, prose(1, 700), codec)
		f.Add(bytes.Clone(dst[:n]), byte(codec))
	}
	back := make([]byte, buffer.Plain+64)
	f.Fuzz(func(t *testing.T, packed []byte, codec byte) {
		for i := range back[buffer.Plain:] {
			back[buffer.Plain+i] = 0xa5
		}
		n, err := c.Decompress(back, packed, Codec(codec))
		if err == nil && (n < 1 || n > buffer.Plain) {
			t.Fatalf("%d bytes without an error", n)
		}
		for _, b := range back[buffer.Plain:] {
			if b != 0xa5 {
				t.Fatal("written beyond one block")
			}
		}
	})
}

func FuzzCompress(f *testing.F) {
	c := newCoder(f)
	f.Add(prose(1, 3000), byte(1))
	f.Add(noise(1, 3000), byte(2))
	f.Fuzz(func(t *testing.T, block []byte, codec byte) {
		dst, back := make([]byte, Room), make([]byte, buffer.Most)
		n, ok := c.Compress(dst, block, Codec(codec))
		if !ok {
			return
		}
		if k, err := c.Decompress(back, dst[:n], Codec(codec)); err != nil || !bytes.Equal(back[:k], block) {
			t.Fatalf("%d bytes came back as %d, %v", len(block), k, err)
		}
	})
}

func BenchmarkCompress(b *testing.B) {
	c := newCoder(b)
	dst := make([]byte, Room)
	for _, k := range []struct {
		name  string
		codec Codec
		block []byte
	}{
		{"s2/prose", S2, prose(1, buffer.Plain)}, {"zstd/prose", Zstd, prose(1, buffer.Plain)},
		{"zstd/noise", Zstd, noise(1, buffer.Plain)},
	} {
		b.Run(k.name, func(b *testing.B) {
			b.SetBytes(int64(len(k.block)))
			for b.Loop() {
				c.Compress(dst, k.block, k.codec)
			}
		})
	}
}

func BenchmarkWorth(b *testing.B) {
	for name, block := range map[string][]byte{"zeros": make([]byte, 10_000), "noise": noise(1, 10_000), "prose": prose(1, 10_000)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Worth(block)
			}
		})
	}
}
