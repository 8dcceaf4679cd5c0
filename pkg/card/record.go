package card

import (
	"encoding/binary"
	"fmt"

	"hawser/pkg/buffer"
	"hawser/pkg/compress"
	"hawser/pkg/stream"
)

// Sizes of a sealed record, in bytes (PROTOCOL.md section 6.1).
const (
	HeaderLen = 4
	TagLen    = 16
	Overhead  = HeaderLen + TagLen
	MaxRecord = buffer.Most + Overhead
	MinRecord = Overhead + 1

	nonceLen = 12
)

// Header is a record's first four bytes.
type Header struct {
	Len   int            // of the whole record with header and tag, MinRecord to MaxRecord
	Codec compress.Codec // flags
	Epoch uint8          // low 8 bits of the key epoch
}

// ParseHeader reads the header at the start of p, which must hold HeaderLen
// bytes. The error matches ErrMalformed.
func ParseHeader(p []byte) (Header, error) {
	if len(p) < HeaderLen {
		return Header{}, fmt.Errorf("card: header of %d bytes: %w", len(p), ErrMalformed)
	}
	h := Header{
		Len:   HeaderLen + int(binary.BigEndian.Uint16(p)),
		Codec: compress.Codec(p[2]),
		Epoch: p[3],
	}
	if h.Len < MinRecord || h.Len > MaxRecord {
		return Header{}, fmt.Errorf("card: record of %d bytes: %w", h.Len, ErrMalformed)
	}
	if !h.Codec.Valid() {
		return Header{}, fmt.Errorf("card: flags %d: %w", p[2], ErrMalformed)
	}
	return h, nil
}

// put writes h to the first four bytes of p.
func (h Header) put(p []byte) {
	binary.BigEndian.PutUint16(p, uint16(h.Len-HeaderLen))
	p[2], p[3] = byte(h.Codec), h.Epoch
}

func setNonce(n *[nonceLen]byte, flow stream.ID, counter uint32) {
	binary.BigEndian.PutUint64(n[:8], uint64(flow))
	binary.BigEndian.PutUint32(n[8:], counter)
}
