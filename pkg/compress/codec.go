// Package compress shrinks the blocks of a flow before they are sealed.
//
// A block is at most buffer.Most bytes and is compressed on its own, so that
// blocks may be opened in any session state and sent again unchanged. Two
// codecs exist: s2 (about 2-3 CPU seconds per GB) and zstd at its fastest
// level (5-8 CPU seconds per GB, a third smaller). Three pure values decide
// whether a block is compressed and how: Worth looks at the block, Memory at
// the flow's past blocks, Chooser at the worker's rate.
//
// The package starts no goroutines: a Coder is made with concurrency 1 and
// works in its caller's goroutine. All types belong to one goroutine.
package compress

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"hawser/pkg/buffer"
)

// Codec names how a block is compressed. The values are those of a sealed
// record's flags (PROTOCOL.md section 6).
type Codec uint8

// Codecs.
const (
	None Codec = iota // the block as it is
	S2                // one s2 block, with its length in front
	Zstd              // one or more zstd frames (RFC 8878) without checksum
)

// String returns the codec's name as status shows it.
func (c Codec) String() string {
	switch c {
	case None:
		return "none"
	case S2:
		return "s2"
	case Zstd:
		return "zstd"
	}
	return "unknown"
}

// Valid reports whether c is a codec that this version knows.
func (c Codec) Valid() bool { return c <= Zstd }

// Room is what the destination of Compress must hold for any block: Most
// and the worst growth of either codec, in bytes.
const Room = buffer.Most + 256

// Errors of Decompress; match with errors.Is.
var (
	ErrCorrupt = errors.New("compressed block is corrupt")
	ErrLarge   = errors.New("compressed block is larger than one block may be")
)

// window bounds what either side of zstd keeps as history, in bytes, a power of two:
// a block is its own window.
const window = 64 << 10

// saving is the part of a block (one over it) that compression must save:
// less is not worth the receiver's work.
const saving = 16

// Coder compresses and decompresses blocks. It holds about 0.5 MB of tables,
// so a worker has one for all its flows. Methods allocate nothing once each
// has run.
type Coder struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// NewCoder returns a Coder. It needs no Close.
func NewCoder() (*Coder, error) {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window),
		zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(false)) // the seal authenticates the block
	if err != nil {
		return nil, fmt.Errorf("compress: zstd encoder: %w", err)
	}
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(buffer.Most),
		zstd.WithDecoderMaxWindow(window),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("compress: zstd decoder: %w", err)
	}
	return &Coder{enc: enc, dec: dec}, nil
}

// Compress writes block to dst (Room bytes, not overlapping) with codec and
// returns the compressed length. ok is false, and dst undefined, when block
// does not shrink by at least a sixteenth, or looks as if it would not.
func (c *Coder) Compress(dst, block []byte, codec Codec) (n int, ok bool) {
	if len(block) > buffer.Most || len(dst) < Room || !Worth(block) {
		return 0, false
	}
	switch codec {
	case S2:
		n = len(s2.Encode(dst, block))
	case Zstd:
		n = len(c.enc.EncodeAll(block, dst[:0]))
	default:
		return 0, false
	}
	return n, n <= len(block)-len(block)/saving
}

// Size returns the length of the block that packed claims to hold, in bytes, buffer.Most
// where it claims more or nothing: room for Decompress.
func Size(packed []byte, codec Codec) int {
	n := uint64(buffer.Most)
	switch codec {
	case S2:
		if said, err := s2.DecodedLen(packed); err == nil {
			n = uint64(said)
		}
	case Zstd:
		var h zstd.Header
		if h.Decode(packed) == nil && h.HasFCS {
			n = h.FrameContentSize
		}
	}
	return int(min(n, buffer.Most))
}

// Decompress writes the block that packed holds to dst (not overlapping) and returns
// its length, 1 to buffer.Most. ErrLarge: it is longer than dst, or than that.
func (c *Coder) Decompress(dst, packed []byte, codec Codec) (int, error) {
	dst = dst[:min(len(dst), buffer.Most):min(len(dst), buffer.Most)]
	switch codec {
	case S2:
		return unpackS2(dst, packed)
	case Zstd:
		return c.unpackZstd(dst, packed)
	}
	return 0, fmt.Errorf("compress: codec %d: %w", codec, ErrCorrupt)
}

func unpackS2(dst, packed []byte) (int, error) {
	n, err := s2.DecodedLen(packed)
	switch {
	case err != nil || n == 0:
		return 0, fmt.Errorf("compress: s2 length: %w", ErrCorrupt)
	case n > len(dst):
		return 0, fmt.Errorf("compress: s2 block of %d bytes: %w", n, ErrLarge)
	}
	if _, err := s2.Decode(dst, packed); err != nil {
		return 0, fmt.Errorf("compress: s2: %w", ErrCorrupt)
	}
	return n, nil
}

func (c *Coder) unpackZstd(dst, packed []byte) (int, error) {
	out, err := c.dec.DecodeAll(packed, dst[:0])
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return 0, fmt.Errorf("compress: zstd: %w", ErrLarge)
	case err != nil:
		return 0, fmt.Errorf("compress: zstd: %w: %w", ErrCorrupt, err)
	case len(out) == 0:
		return 0, fmt.Errorf("compress: zstd: empty block: %w", ErrCorrupt)
	case len(out) > len(dst) || &out[0] != &dst[0]:
		return 0, fmt.Errorf("compress: zstd: %w", ErrLarge) // decoded elsewhere: it did not fit
	}
	return len(out), nil
}
