// Package card holds the crypto cards: devices that compress and seal, or open
// and decompress, one record per job.
//
// A worker speaks to its card through a Channel with a bounded input queue and
// a bounded output queue, so that a card may work elsewhere (on other threads,
// in the kernel, in hardware) while the worker goes on. Inline is the kind
// that works in the worker's own goroutine and has each result at once. Pool
// works in threads of its own, in software or (NewKernel) with the kernel's
// crypto API. A Guard stands before an asynchronous channel: it does small jobs
// itself, and all of them when the card stalls. Measure finds out which kind
// suits a machine.
//
// Records and keys are specified in PROTOCOL.md section 6.
//
// Goroutines: Pool.Run owns one per thread (thread.loop), which ends with its
// context. Measure owns a pool and one goroutine per worker that it imitates,
// and returns after they have ended. A Channel belongs to one worker; Keyring
// and Rings may be used from any goroutine.
//
// # Files
//
//   - card: Job and Channel; record: a sealed record; engine: compresses and seals
//   - inline, pool, kernel: the kinds; ring: a pool's queue; guard: a card that fails; faulty:
//     faults for tests
//   - keyring, rings: keys of sessions; measure: which kind suits
package card

import (
	"errors"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/compress"
	"hawser/pkg/stream"
)

// Errors of a Job; match with errors.Is. For the receiver of a record all of
// the first three mean the same: these bytes are not what the peer sealed.
var (
	ErrForged    = errors.New("record is forged or corrupt")
	ErrMalformed = errors.New("record is malformed")
	ErrEpoch     = errors.New("record's key epoch is out of reach")
	ErrJob       = errors.New("job is impossible") // the caller's mistake
)

// ErrLost is the error of a Job that the card has accepted and could not do:
// it says nothing about the record. Behind a Guard no caller sees it.
var ErrLost = errors.New("card has lost the job")

// Op is what a Job asks for.
type Op uint8

// Operations.
const (
	Seal Op = iota + 1 // compress where worthwhile, then encrypt
	Open               // authenticate and decrypt, then decompress
)

// Job is one operation on one record. The caller fills the first group of
// fields and owns the Job again when TryGet returns it; a Job may be used any
// number of times.
type Job struct {
	Op      Op
	Codec   compress.Codec // Seal: the codec to try; None leaves the block as it is
	Ring    *Keyring
	Flow    stream.ID
	Counter uint32 // of this record in its flow and direction; never used twice for Seal
	Now     time.Time
	Owner   any   // the caller's own mark
	Since   *Keys // Open: what Ring had when the record came; nil: what it has now

	// Slab and its only reference pass to the card. Seal: N plain bytes, 1 to
	// buffer.Most, at HeaderLen, with TagLen free behind them. Open: a whole
	// record of N bytes at 0.
	Slab *buffer.Buf
	N    int
	// In is the input when Slab is nil: the plain bytes for Seal, a whole
	// record for Open. Its reference passes to the card, which only reads the
	// bytes.
	In buffer.Seg

	// Out is the result and belongs to whoever took the Job from TryGet:
	// the record after Seal, the plain block after Open. Empty with Err.
	Out  buffer.Seg
	Used compress.Codec // the codec that the record has
	Err  error

	nonce [nonceLen]byte // here because it escapes through cipher.AEAD
}

// drop releases what a job holds.
func (j *Job) drop() {
	j.input()
	j.Out.Release()
	j.Out = buffer.Seg{}
}

// input releases what a job was given.
func (j *Job) input() {
	if j.Slab != nil {
		j.Slab.Release()
	}
	j.In.Release()
	j.Slab, j.In = nil, buffer.Seg{}
}

// Channel is a worker's way to a card. One goroutine puts and gets; nothing
// blocks. Results leave in the order in which the jobs were put.
type Channel interface {
	// TryPut hands j over. It returns false when the input queue is full;
	// then j stays the caller's, and a free place follows on a later TryGet.
	TryPut(j *Job) bool
	// TryGet returns the oldest finished job, or nil.
	TryGet() *Job
	// Park announces that the caller is about to wait. It returns false when
	// TryGet has something, and must not be waited on then. Otherwise the next
	// result wakes the caller once, and the caller comes back after limit at
	// the latest; a negative limit has no end.
	Park(now time.Time) (limit time.Duration, ok bool)
	// FD returns a descriptor that becomes readable, with a new edge each
	// time, for the first result after Park; or -1 for a card whose result is
	// there when TryPut returns or which wakes its user in another way.
	FD() int
	// Close ends the channel and releases what the jobs inside hold, at once
	// or as soon as the card lets go of them.
	Close()
}
