package gcm

import (
	"bytes"
	"crypto/cipher"
	"math/rand/v2"
	"testing"
)

// pair returns the assembler's AEAD and the standard library's for a key.
func pair(t testing.TB, key []byte) (ours, theirs cipher.AEAD) {
	t.Helper()
	if !wide() {
		t.Skip("this processor has no VAES, or no VPCLMULQDQ: New returns the standard library's")
	}
	theirs, err := standard(key)
	if err != nil {
		t.Fatal(err)
	}
	return newWide(key), theirs
}

// noise is n random bytes, the same for a seed.
func noise(seed byte, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// agree seals and opens a message by both, there and in place.
func agree(t testing.TB, key, nonce, plain, additional []byte) {
	t.Helper()
	ours, theirs := pair(t, key)
	want := theirs.Seal([]byte("ahead"), nonce, plain, additional)
	got := ours.Seal([]byte("ahead"), nonce, plain, additional)
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes with %d: sealed %x, should be %x", len(plain), len(additional), got, want)
	}
	sealed := want[len("ahead"):]
	there, err := ours.Open(nil, nonce, sealed, additional)
	if err != nil || !bytes.Equal(there, plain) {
		t.Fatalf("%d bytes with %d: opened %x, %v, should be %x", len(plain), len(additional), there, err, plain)
	}
	place := append(make([]byte, 0, len(plain)+ours.Overhead()), plain...)
	place = ours.Seal(place[:0], nonce, place, additional)
	if !bytes.Equal(place, sealed) {
		t.Fatalf("%d bytes with %d: other bytes in place", len(plain), len(additional))
	}
	if place, err = ours.Open(place[:0], nonce, place, additional); err != nil || !bytes.Equal(place, plain) {
		t.Fatalf("%d bytes with %d: in place opened wrong, %v", len(plain), len(additional), err)
	}
}

// TestNew: what is chosen seals as the standard library does, whichever of the two it
// asks, and takes no other key.
func TestNew(t *testing.T) {
	chosen, err := New(noise(1, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	if _, ours := chosen.(*both); ours != wide() {
		t.Errorf("chose %T, with the instructions: %v", chosen, wide())
	}
	theirs, _ := standard(noise(1, KeySize))
	for _, n := range []int{0, 1, little - 17, little - 16, little - 1, little, little + 1, 16 << 10} {
		sealed := chosen.Seal(nil, noise(2, 12), noise(3, n), noise(4, 8))
		if !bytes.Equal(sealed, theirs.Seal(nil, noise(2, 12), noise(3, n), noise(4, 8))) {
			t.Errorf("%d bytes: sealed in another way", n)
		}
		if plain, err := chosen.Open(nil, noise(2, 12), sealed, noise(4, 8)); err != nil || !bytes.Equal(plain, noise(3, n)) {
			t.Errorf("%d bytes: opened wrong, %v", n, err)
		}
	}
	for _, size := range []int{0, 16, 24, 31, 33} {
		if _, err := New(make([]byte, size)); err == nil {
			t.Errorf("took a key of %d bytes", size)
		}
	}
}

// liar is an AEAD whose instructions do something else.
type liar struct{ cipher.AEAD }

func (l liar) Seal(dst, nonce, plain, additional []byte) []byte {
	sealed := l.AEAD.Seal(dst, nonce, plain, additional)
	sealed[len(sealed)-1] ^= 1
	return sealed
}

// TestAgrees: one that differs is found out.
func TestAgrees(t *testing.T) {
	ours, theirs := pair(t, noise(5, KeySize))
	if !agrees(ours, theirs) || agrees(liar{theirs}, theirs) || agrees(ours, liar{theirs}) {
		t.Error("does not tell who differs")
	}
}

// TestLikeStandard goes through all lengths up to some groups, and those of records.
func TestLikeStandard(t *testing.T) {
	plain, additional := noise(2, 17<<10), noise(3, 400)
	var lengths []int
	for n := range 5*group + 2 {
		lengths = append(lengths, n)
	}
	for _, n := range []int{1400, 4096, 16<<10 - 1, 16 << 10, 16<<10 + 1, 16<<10 + 129, 17 << 10} {
		lengths = append(lengths, n)
	}
	for i, n := range lengths {
		for _, more := range []int{0, 4, 8, i % 17, 16, i % len(additional)} {
			agree(t, noise(byte(i), KeySize), noise(byte(i+1), 12), plain[:n], additional[:more])
		}
	}
}

// TestExtremes: bits that carry, in keys, nonces and blocks.
func TestExtremes(t *testing.T) {
	fill := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	for _, k := range []byte{0, 1, 0x80, 0xff} {
		for _, n := range []byte{0, 0x80, 0xff} {
			for _, p := range []byte{0, 0x80, 0xff} {
				for _, size := range []int{1, 16, 128, 129, 1024, 1031} {
					agree(t, fill(k, KeySize), fill(n, 12), fill(p, size), fill(p, 13))
				}
			}
		}
	}
}

// TestRandom is many random messages under random keys.
func TestRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, KeySize+12+4096+64)
	for range 20_000 {
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		n, more := rng.IntN(4096), rng.IntN(64)
		agree(t, p[:KeySize], p[KeySize:][:12], p[KeySize+12:][:n], p[KeySize+12+4096:][:more])
	}
}

// TestForged changes each byte of messages, and of what is authenticated with them: none
// opens, and nothing of the text comes out.
func TestForged(t *testing.T) {
	for _, n := range []int{0, 1, 40, 128, 300, 1024 + 5} {
		ours, _ := pair(t, noise(4, KeySize))
		nonce, additional := noise(5, 12), noise(6, 9)
		sealed := ours.Seal(nil, nonce, noise(7, n), additional)
		try := func(what string, nonce, sealed, additional []byte) {
			t.Helper()
			out := bytes.Repeat([]byte{0xaa}, n)
			if got, err := ours.Open(out[:0], nonce, sealed, additional); err == nil || got != nil {
				t.Errorf("%d bytes, %s: opened", n, what)
			}
			if len(sealed) == n+ours.Overhead() && !bytes.Equal(out, make([]byte, n)) {
				t.Errorf("%d bytes, %s: something came out", n, what)
			}
		}
		for i := range sealed {
			bad := bytes.Clone(sealed)
			bad[i] ^= 1 << (i % 8)
			try("message", nonce, bad, additional)
		}
		for i := range additional {
			bad := bytes.Clone(additional)
			bad[i] ^= 1 << (i % 8)
			try("additional data", nonce, sealed, bad)
		}
		for i := range nonce {
			bad := bytes.Clone(nonce)
			bad[i] ^= 1 << (i % 8)
			try("nonce", bad, sealed, additional)
		}
		try("shorter", nonce, sealed[:len(sealed)-1], additional)
		try("no tag", nonce, sealed[:min(n, 15)], additional)
		try("additional data with a zero more", nonce, sealed, append(bytes.Clone(additional), 0))
	}
}

// TestMisuse: what would tell the key stream apart panics, as the standard library does.
func TestMisuse(t *testing.T) {
	ours, _ := pair(t, noise(8, KeySize))
	p := noise(9, 256)
	for what, f := range map[string]func(){
		"nonce":        func() { ours.Seal(nil, p[:11], p, nil) },
		"overlap":      func() { ours.Seal(p[1:1], p[:12], p[:100], nil) },
		"overlap open": func() { _, _ = ours.Open(p[1:1], p[:12], p[:100], nil) },
		"additional":   func() { ours.Seal(p[:0], noise(1, 12), p[:100], p[50:60]) },
	} {
		t.Run(what, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

// TestBounds: nothing beyond a result is written.
func TestBounds(t *testing.T) {
	ours, _ := pair(t, noise(10, KeySize))
	nonce := noise(11, 12)
	for n := range 3*group + 1 {
		plain := noise(12, n)
		room := bytes.Repeat([]byte{0xee}, n+ours.Overhead()+64)
		sealed := ours.Seal(room[:0], nonce, plain, nil)
		if !bytes.Equal(room[len(sealed):], bytes.Repeat([]byte{0xee}, 64)) {
			t.Fatalf("seal of %d bytes wrote beyond its end", n)
		}
		out := bytes.Repeat([]byte{0xee}, n+64)
		if _, err := ours.Open(out[:0], nonce, sealed, nil); err != nil || !bytes.Equal(out[n:], bytes.Repeat([]byte{0xee}, 64)) {
			t.Fatalf("open of %d bytes wrote beyond its end, or %v", n, err)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	ours, _ := pair(t, noise(13, KeySize))
	nonce, additional, p := noise(14, 12), noise(15, 8), make([]byte, 1000, 1016)
	if n := testing.AllocsPerRun(100, func() {
		sealed := ours.Seal(p[:0], nonce, p, additional)
		if _, err := ours.Open(sealed[:0], nonce, sealed, additional); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}

func FuzzLikeStandard(f *testing.F) {
	f.Add(noise(16, KeySize), noise(17, 12), noise(18, 300), noise(19, 9))
	f.Add(make([]byte, KeySize), make([]byte, 12), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, nonce, plain, additional []byte) {
		if len(key) == KeySize && len(nonce) == 12 {
			agree(t, key, nonce, plain, additional)
		}
	})
}

func benchmark(b *testing.B, create func([]byte) (cipher.AEAD, error), size int, open bool) {
	a, err := create(noise(20, KeySize))
	if err != nil {
		b.Fatal(err)
	}
	nonce, additional, p := noise(21, 12), noise(22, 8), make([]byte, size, size+16)
	sealed := a.Seal(nil, nonce, p, additional)
	b.SetBytes(int64(size))
	for b.Loop() {
		if open {
			_, err = a.Open(p[:0], nonce, sealed, additional)
		} else {
			a.Seal(p[:0], nonce, p, additional)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
}

func BenchmarkSeal16K(b *testing.B)          { benchmark(b, New, 16<<10, false) }
func BenchmarkSeal16KStandard(b *testing.B)  { benchmark(b, standard, 16<<10, false) }
func BenchmarkOpen16K(b *testing.B)          { benchmark(b, New, 16<<10, true) }
func BenchmarkOpen16KStandard(b *testing.B)  { benchmark(b, standard, 16<<10, true) }
func BenchmarkSeal1K(b *testing.B)           { benchmark(b, New, 1<<10, false) }
func BenchmarkSeal1KStandard(b *testing.B)   { benchmark(b, standard, 1<<10, false) }
func BenchmarkSeal40(b *testing.B)           { benchmark(b, New, 40, false) }
func BenchmarkSeal40Standard(b *testing.B)   { benchmark(b, standard, 40, false) }
func BenchmarkOpen1400(b *testing.B)         { benchmark(b, New, 1400, true) }
func BenchmarkOpen1400Standard(b *testing.B) { benchmark(b, standard, 1400, true) }
