package wire

import "hawser/pkg/buffer"

// Record is one link record as the tunnel sees it (PROTOCOL.md section 4): a
// header block, which the link seals, and at most one body, which the card has
// already sealed. An empty Body means none.
type Record struct {
	Block []byte
	Body  buffer.Seg
}

// MaxBlock is the largest header block before sealing, in bytes.
const MaxBlock = 4096

// MaxBody is the largest body, in bytes.
const MaxBody = 48 << 10
