package link

import (
	"context"
	"fmt"
	"time"
)

// A stranger may send by QUIC, until it has said HELLO and was known, so many bytes in all:
// twice what an edge needs whose line loses most packets. It is looked at that often.
const (
	strangerMost = 48 << 10
	strangerLook = 100 * time.Millisecond
)

var errHeaps = fmt.Errorf("sent more than %d bytes without a HELLO that was welcome", strangerMost)

// watch implements incoming. What nobody reads the library keeps frame by frame, with some 200
// bytes for each, be it of one byte: windows bound that little.
func (in *quicIncoming) watch(ctx context.Context) {
	look := time.NewTicker(strangerLook)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		// In this order: what comes once it is known does not count.
		if in.conn.ConnectionStats().BytesReceived > strangerMost && ctx.Err() == nil {
			in.heaps.Store(true)
			in.drop()
			return
		}
	}
}

// blame implements incoming.
func (in *quicIncoming) blame(err error) error {
	if in.heaps.Load() {
		return errHeaps
	}
	return err
}
