package card

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/compress"
	"hawser/pkg/stream"
)

var (
	secret = bytes.Repeat([]byte{0x5a}, SecretLen)
	start  = time.Unix(1_700_000_000, 0)
)

func rings(t testing.TB) (edge, cloud *Keyring) {
	t.Helper()
	edge, err := NewKeyring(secret, Edge)
	if err != nil {
		t.Fatal(err)
	}
	if cloud, err = NewKeyring(secret, Cloud); err != nil {
		t.Fatal(err)
	}
	return edge, cloud
}

func inline(t testing.TB) *Inline {
	t.Helper()
	c, err := NewInline(4)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func text(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "line %d of a page;\n", i*i)
	}
	return b.Bytes()[:n]
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 3))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// run puts one job and takes its result.
func run(t testing.TB, c Channel, j *Job) *Job {
	t.Helper()
	if !c.TryPut(j) {
		t.Fatal("queue is full")
	}
	if got := c.TryGet(); got != j {
		t.Fatal("another job came back")
	}
	if j.Slab != nil || j.In.P != nil {
		t.Fatal("the input is still there")
	}
	return j
}

func sealJob(k *Keyring, counter uint32, plain []byte, codec compress.Codec) *Job {
	b := buffer.Get(len(plain) + Overhead)
	copy(b.Bytes()[HeaderLen:], plain)
	return &Job{Op: Seal, Codec: codec, Ring: k, Flow: 7, Counter: counter, Now: start, Slab: b, N: len(plain)}
}

func sealed(t testing.TB, c Channel, k *Keyring, counter uint32, plain []byte, codec compress.Codec) []byte {
	t.Helper()
	j := run(t, c, sealJob(k, counter, plain, codec))
	if j.Err != nil {
		t.Fatal(j.Err)
	}
	defer j.Out.Release()
	return bytes.Clone(j.Out.P)
}

func openJob(k *Keyring, counter uint32, record []byte) *Job {
	return &Job{Op: Open, Ring: k, Flow: 7, Counter: counter, Now: start, In: buffer.Copy(record)}
}

func leaks(t testing.TB) {
	t.Helper()
	before := buffer.Live()
	t.Cleanup(func() {
		if now := buffer.Live(); now != before {
			t.Errorf("%d bytes of slabs were not released", now-before)
		}
	})
}

func TestRoundTrip(t *testing.T) {
	leaks(t)
	edge, cloud := rings(t)
	c := inline(t)
	var counter uint32
	for _, make := range []func(int) []byte{text, noise} {
		for _, codec := range []compress.Codec{compress.None, compress.S2, compress.Zstd} {
			for _, n := range []int{1, 2, 100, 1000, 2028, 2029, 2048, 5000, buffer.Plain, buffer.Plain + 1, buffer.Most} {
				for _, own := range []bool{false, true} {
					plain := make(n)
					record := sealed(t, c, edge, counter, plain, codec)
					if len(record) > n+Overhead {
						t.Fatalf("%d bytes became %d", n, len(record))
					}
					j := openJob(cloud, counter, record)
					if own {
						j.Slab, j.N = buffer.Get(len(record)), len(record)
						copy(j.Slab.Bytes(), record)
						j.In.Release()
						j.In = buffer.Seg{}
					}
					run(t, c, j)
					if j.Err != nil || !bytes.Equal(j.Out.P, plain) {
						t.Fatalf("%v, %d bytes, own %v: %d bytes came back, %v", codec, n, own, j.Out.Len(), j.Err)
					}
					j.Out.Release()
					counter++
				}
			}
		}
	}
}

// A record is what PROTOCOL.md says, computed here from its text alone.
func TestRecordFormat(t *testing.T) {
	edge, cloud := rings(t)
	c := inline(t)
	for _, k := range []struct {
		ring  *Keyring
		label string
	}{{edge, "hawser 1 edge to cloud"}, {cloud, "hawser 1 cloud to edge"}} {
		s0, err := hkdf.Key(sha256.New, secret, nil, k.label, 32)
		if err != nil {
			t.Fatal(err)
		}
		s1, _ := hkdf.Expand(sha256.New, s0, "hawser 1 next epoch", 32)
		for e, s := range [][]byte{s0, s1} {
			key, _ := hkdf.Expand(sha256.New, s, "hawser 1 record key", 32)
			block, _ := aes.NewCipher(key)
			aead, _ := cipher.NewGCM(block)
			head := []byte{0, 5 + 16, 0, byte(e)}
			nonce := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, 7), 258)
			want := aead.Seal(bytes.Clone(head), nonce, []byte("plain"), head)
			j := sealJob(k.ring, 258, []byte("plain"), compress.Zstd)
			j.Now = start.Add(time.Duration(e) * time.Hour)
			if run(t, c, j); j.Err != nil || !bytes.Equal(j.Out.P, want) {
				t.Errorf("%s, epoch %d:\n%x\n%x wanted (%v)", k.label, e, j.Out.P, want, j.Err)
			}
			j.Out.Release()
		}
	}
}

// Any flipped bit of a record, a wrong counter, flow, direction or secret:
// refused, and the shared input is left as it was.
func TestTampered(t *testing.T) {
	leaks(t)
	edge, cloud := rings(t)
	c := inline(t)
	for _, codec := range []compress.Codec{compress.None, compress.S2} {
		record := sealed(t, c, edge, 3, text(300), codec)
		refuse := func(name string, j *Job) {
			t.Helper()
			given := bytes.Clone(j.In.P)
			keep := j.In.Share()
			defer keep.Release()
			run(t, c, j)
			if j.Err == nil || j.Out.P != nil {
				t.Errorf("%s: opened", name)
			}
			if !errors.Is(j.Err, ErrForged) && !errors.Is(j.Err, ErrMalformed) && !errors.Is(j.Err, ErrEpoch) {
				t.Errorf("%s: error %v", name, j.Err)
			}
			if !bytes.Equal(keep.P, given) {
				t.Errorf("%s: the shared bytes were written to", name)
			}
		}
		for bit := range len(record) * 8 {
			bad := bytes.Clone(record)
			bad[bit/8] ^= 1 << (bit % 8)
			refuse(fmt.Sprintf("bit %d", bit), openJob(cloud, 3, bad))
		}
		for cut := range len(record) {
			refuse(fmt.Sprintf("cut to %d", cut), openJob(cloud, 3, record[:cut]))
		}
		refuse("longer", openJob(cloud, 3, append(bytes.Clone(record), 0)))
		refuse("counter", openJob(cloud, 4, record))
		refuse("direction", openJob(edge, 3, record))
		other := openJob(cloud, 3, record)
		other.Flow = 8
		refuse("flow", other)
		stranger, err := NewKeyring(noise(SecretLen), Cloud)
		if err != nil {
			t.Fatal(err)
		}
		refuse("secret", openJob(stranger, 3, record))
		j := run(t, c, openJob(cloud, 3, record))
		if j.Err != nil {
			t.Errorf("the true record: %v", j.Err)
		}
		j.Out.Release()
	}
}

// An authentic record that does not decompress is refused, not believed.
func TestBadBlock(t *testing.T) {
	leaks(t)
	edge, cloud := rings(t)
	c := inline(t)
	for flags := uint8(1); flags < 4; flags++ {
		key, err := edge.seal.take(0, start)
		if err != nil {
			t.Fatal(err)
		}
		body := []byte("not compressed at all")
		head := make([]byte, HeaderLen)
		Header{Len: len(body) + Overhead, Codec: compress.Codec(flags)}.put(head)
		var nonce [nonceLen]byte
		setNonce(&nonce, 7, 1)
		j := run(t, c, openJob(cloud, 1, key.aead.Seal(bytes.Clone(head), nonce[:], body, head)))
		if !errors.Is(j.Err, ErrMalformed) {
			t.Errorf("flags %d: %v", flags, j.Err)
		}
	}
}

func TestResultSlab(t *testing.T) {
	leaks(t)
	edge, cloud := rings(t)
	c := inline(t)
	live := buffer.Live()
	for i, k := range []struct {
		plain []byte
		codec compress.Codec
		most  int64
	}{
		{noise(100), compress.None, buffer.Small}, {noise(3000), compress.None, 3 << 10}, {noise(buffer.Plain), compress.None, buffer.Plain + buffer.Slack},
		{noise(buffer.Most), compress.None, buffer.Large},
		{bytes.Repeat([]byte("a"), buffer.Plain), compress.Zstd, buffer.Small},
	} {
		j := run(t, c, sealJob(edge, uint32(i), k.plain, k.codec))
		if held := buffer.Live() - live; held != k.most {
			t.Errorf("record %d of %d bytes holds %d bytes of slab, want %d", i, j.Out.Len(), held, k.most)
		}
		o := run(t, c, &Job{Op: Open, Ring: cloud, Flow: 7, Counter: uint32(i), In: j.Out})
		if held := buffer.Live() - live; o.Err != nil || held > int64(buffer.Size(len(k.plain)+Overhead)) {
			t.Errorf("block %d holds %d bytes of slab, %v", i, held, o.Err)
		}
		o.Out.Release()
	}
	for i, k := range []struct {
		slab, n int
		stays   bool
	}{{buffer.Plain, 9000, true}, {buffer.Large, 30_000, false}, {buffer.Large, 34_000, true}} {
		big := buffer.Get(k.slab)
		copy(big.Bytes()[HeaderLen:], noise(k.n))
		j := run(t, c, &Job{Op: Seal, Ring: edge, Flow: 7, Counter: uint32(9 + i), Now: start, Slab: big, N: k.n})
		if stays := &j.Out.P[0] == &big.Bytes()[0]; stays != k.stays {
			t.Errorf("a plain record of %d bytes in a slab of %d stays there: %v", k.n, k.slab, stays)
		}
		j.Out.Release()
	}
}

func TestJobErrors(t *testing.T) {
	leaks(t)
	edge, _ := rings(t)
	c := inline(t)
	for name, j := range map[string]*Job{
		"no operation":  {Ring: edge, Slab: buffer.Get(10), N: 1},
		"no keyring":    {Op: Seal, Slab: buffer.Get(10), N: 1},
		"no slab":       {Op: Seal, Ring: edge, N: 1},
		"nothing":       {Op: Seal, Ring: edge, Slab: buffer.Get(10)},
		"negative":      {Op: Seal, Ring: edge, Slab: buffer.Get(10), N: -1},
		"too much":      {Op: Seal, Ring: edge, Slab: buffer.Get(1 << 16), N: buffer.Most + 1},
		"no room":       {Op: Seal, Ring: edge, Slab: buffer.Get(10), N: buffer.Small - Overhead + 1},
		"open beyond":   {Op: Open, Ring: edge, Slab: buffer.Get(10), N: buffer.Small + 1},
		"open negative": {Op: Open, Ring: edge, Slab: buffer.Get(10), N: -1},
	} {
		if run(t, c, j); !errors.Is(j.Err, ErrJob) || j.Out.P != nil {
			t.Errorf("%s: %v", name, j.Err)
		}
	}
	if _, err := NewInline(0); err == nil {
		t.Error("a queue of none was made")
	}
}

func TestInlineQueue(t *testing.T) {
	leaks(t)
	edge, _ := rings(t)
	c := inline(t)
	if c.FD() != -1 || c.TryGet() != nil {
		t.Error("a new inline card has something to say")
	}
	var jobs []*Job
	for i := range uint32(11) { // more than the ring holds, so it wraps
		j := sealJob(edge, i, []byte{byte(i)}, compress.None)
		if !c.TryPut(j) {
			t.Fatalf("job %d refused", i)
		}
		jobs = append(jobs, j)
		if len(jobs) == 4 {
			extra := sealJob(edge, 100, []byte{1}, compress.None)
			if c.TryPut(extra) || extra.Slab == nil {
				t.Fatal("a full queue took a job, or its slab")
			}
			extra.drop()
			for range 3 {
				if got := c.TryGet(); got != jobs[0] || got.Err != nil {
					t.Fatal("out of order")
				}
				jobs[0].Out.Release()
				jobs = jobs[1:]
			}
		}
	}
	c.Close()
	if c.TryGet() != nil {
		t.Error("a closed card has a result")
	}
}

func TestHeader(t *testing.T) {
	for _, k := range []struct {
		p  []byte
		ok bool
	}{
		{[]byte{0, 17, 0, 0}, true}, {[]byte{0, 16, 0, 0}, false}, {[]byte{0, 0, 0, 0}, false},
		{[]byte{0x40, 0x11, 2, 255}, true}, {[]byte{0xfe, 0x10, 2, 255}, true}, {[]byte{0xfe, 0x11, 2, 255}, false}, {[]byte{0xff, 0xff, 0, 0}, false},
		{[]byte{1, 0, 1, 9}, true}, {[]byte{1, 0, 3, 9}, false}, {[]byte{1, 0, 128, 9}, false}, {[]byte{1, 0, 0}, false},
	} {
		if h, err := ParseHeader(k.p); (err == nil) != k.ok || (err != nil && !errors.Is(err, ErrMalformed)) {
			t.Errorf("%x: %+v, %v", k.p, h, err)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	edge, cloud := rings(t)
	c := inline(t)
	for name, k := range map[string]struct {
		plain []byte
		codec compress.Codec
	}{"bulk": {noise(buffer.Plain), compress.S2}, "short": {noise(64), compress.S2}, "text": {text(buffer.Plain), compress.Zstd}} {
		var s, o Job
		round := func() {
			b := buffer.Get(buffer.Large)
			copy(b.Bytes()[HeaderLen:], k.plain)
			s = Job{Op: Seal, Codec: k.codec, Ring: edge, Flow: 7, Counter: s.Counter + 1, Now: start, Slab: b, N: len(k.plain)}
			c.TryPut(&s)
			c.TryGet()
			o = Job{Op: Open, Ring: cloud, Flow: 7, Counter: s.Counter, Now: start, In: s.Out}
			c.TryPut(&o)
			c.TryGet()
			if s.Err != nil || o.Err != nil {
				t.Fatal(s.Err, o.Err)
			}
			o.Out.Release()
		}
		round()
		if n := testing.AllocsPerRun(300, round); n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations per record", name, n)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0, 17, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := ParseHeader(p)
		if err != nil {
			return
		}
		var q [HeaderLen]byte
		h.put(q[:])
		if h.Len < MinRecord || h.Len > MaxRecord || !bytes.Equal(q[:], p[:HeaderLen]) {
			t.Fatalf("%x read as %+v", p, h)
		}
	})
}

func FuzzOpen(f *testing.F) {
	edge, cloud := rings(f)
	c := inline(f)
	f.Add(sealed(f, c, edge, 0, []byte("plain"), compress.None))
	f.Add(sealed(f, c, edge, 0, text(2000), compress.Zstd))
	f.Fuzz(func(t *testing.T, p []byte) {
		live := buffer.Live()
		j := run(t, c, openJob(cloud, 99, p)) // sealed as 0: nothing opens
		if j.Err == nil {
			t.Fatalf("%x opened", p)
		}
		if buffer.Live() != live {
			t.Fatal("a slab was not released")
		}
	})
}

func BenchmarkCard(b *testing.B) {
	edge, cloud := rings(b)
	c := inline(b)
	for _, n := range []int{64, 1 << 10, 4 << 10, buffer.Plain} {
		plain := noise(n)
		b.Run(fmt.Sprintf("seal/%d", n), func(b *testing.B) {
			var j Job
			b.SetBytes(int64(n))
			for i := range b.N {
				slab := buffer.Get(n + Overhead)
				j = Job{Op: Seal, Ring: edge, Flow: 7, Counter: uint32(i), Now: start, Slab: slab, N: n}
				c.TryPut(&j)
				c.TryGet()
				j.Out.Release()
			}
		})
		record := sealed(b, c, edge, 1, plain, compress.None)
		b.Run(fmt.Sprintf("open/%d", n), func(b *testing.B) {
			var j Job
			in := buffer.Seg{P: record}
			b.SetBytes(int64(n))
			for range b.N {
				j = Job{Op: Open, Ring: cloud, Flow: 7, Counter: 1, In: in}
				c.TryPut(&j)
				c.TryGet()
				if j.Err != nil {
					b.Fatal(j.Err)
				}
				j.Out.Release()
			}
		})
	}
	for _, codec := range []compress.Codec{compress.S2, compress.Zstd} {
		plain := text(buffer.Plain)
		b.Run("seal/text/"+codec.String(), func(b *testing.B) {
			var j Job
			b.SetBytes(buffer.Plain)
			for i := range b.N {
				slab := buffer.Get(buffer.Large)
				copy(slab.Bytes()[HeaderLen:], plain)
				j = Job{Op: Seal, Codec: codec, Ring: edge, Flow: stream.ID(i), Now: start, Slab: slab, N: len(plain)}
				c.TryPut(&j)
				c.TryGet()
				j.Out.Release()
			}
		})
	}
}
