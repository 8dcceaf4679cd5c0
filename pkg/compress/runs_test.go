package compress

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/klauspost/compress/s2"

	"hawser/pkg/buffer"
)

// repetitiveBlocks are blocks of runs and short patterns.
func repetitiveBlocks() (blocks [][]byte) {
	for _, n := range []int{128, 129, 1000, 10_000, 16_383, buffer.Plain} {
		for _, period := range []int{1, 2, 3, 7, 64, 100} {
			block := bytes.Repeat(noise(uint64(period), period), n/period+1)[:n]
			mixed := bytes.Clone(block)
			copy(mixed[n/2:], noise(9, 8))
			blocks = append(blocks, block, mixed)
		}
	}
	return blocks
}

func TestRuns(t *testing.T) {
	c := newCoder(t)
	packed, dst := make([]byte, Room), make([]byte, buffer.Plain)
	taken := 0
	for _, block := range repetitiveBlocks() {
		p := s2.Encode(packed, block)
		_, head := binary.Uvarint(p)
		clear(dst)
		if !unpackRuns(dst[:len(block)], p[head:]) || !bytes.Equal(dst[:len(block)], block) {
			t.Errorf("%d bytes in %d come back wrong", len(block), len(p))
		}
		if len(block) >= repetitive*len(p) {
			taken++
		}
		clear(dst)
		if n, err := c.Decompress(dst, p, S2); err != nil || !bytes.Equal(dst[:n], block) {
			t.Errorf("%d bytes in %d: %d, %v", len(block), len(p), n, err)
		}
	}
	if taken < 20 {
		t.Errorf("only %d blocks are so repetitive", taken)
	}
}

// FuzzRuns holds unpackRuns to what s2's own decoder makes of a block.
func FuzzRuns(f *testing.F) {
	for _, block := range append(repetitiveBlocks(), prose(1, 3000), noise(1, 300)) {
		p := s2.Encode(nil, block)
		_, head := binary.Uvarint(p)
		f.Add(uint16(len(block)), p[head:])
	}
	f.Fuzz(func(t *testing.T, size uint16, packed []byte) {
		n := int(size)%buffer.Plain + 1
		got := make([]byte, n)
		ok := unpackRuns(got, packed)
		want, err := s2.Decode(nil, append(binary.AppendUvarint(nil, uint64(n)), packed...))
		if ok != (err == nil) || ok && !bytes.Equal(got, want) {
			t.Errorf("%d bytes of %x: %v, s2 says %v", n, packed, ok, err)
		}
	})
}

func BenchmarkDecompress(b *testing.B) {
	c, _ := NewCoder()
	dst := make([]byte, buffer.Plain)
	for name, block := range map[string][]byte{"zeros": make([]byte, 10_000), "pattern": bytes.Repeat(noise(1, 48), 200), "prose": prose(1, 10_000)} {
		packed := s2.Encode(nil, block)
		b.Run(fmt.Sprintf("%s,%d", name, len(packed)), func(b *testing.B) {
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				if _, err := c.Decompress(dst, packed, S2); err != nil {
					b.Fatal(err)
				}
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
