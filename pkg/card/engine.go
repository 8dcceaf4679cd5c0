package card

import (
	"fmt"

	"hawser/pkg/buffer"
	"hawser/pkg/compress"
)

// crypter does the AEAD of one thread's records. dst has room for exactly the
// result and may begin where the input does. The errors of open match
// ErrForged for a record that is not authentic; all others match ErrLost.
type crypter interface {
	// seal writes aad's record to dst: aad, the encrypted plain, the tag.
	// dst begins with aad already.
	seal(key *recordKey, nonce *[nonceLen]byte, dst, plain []byte) error
	// open writes the plain text of a record to dst.
	open(key *recordKey, nonce *[nonceLen]byte, dst, record []byte) error
	close()
}

// software is the crypter of this process's own instructions.
type software struct{}

func (software) seal(key *recordKey, nonce *[nonceLen]byte, dst, plain []byte) error {
	key.Seal(dst[HeaderLen:HeaderLen], nonce[:], plain, dst[:HeaderLen])
	return nil
}

func (software) open(key *recordKey, nonce *[nonceLen]byte, dst, record []byte) error {
	if _, err := key.Open(dst[:0], nonce[:], record[HeaderLen:], record[:HeaderLen]); err != nil {
		return ErrForged
	}
	return nil
}

func (software) close() {}

// engine does a job's work in the calling goroutine. Each thread of a card
// has one.
type engine struct {
	coder   *compress.Coder
	crypt   crypter
	scratch []byte // compressed plain text between the two steps
}

func newEngine() (*engine, error) {
	c, err := compress.NewCoder()
	if err != nil {
		return nil, err
	}
	return &engine{coder: c, crypt: software{}, scratch: make([]byte, compress.Room)}, nil
}

// do fills the job's result fields and gives up its input.
func (e *engine) do(j *Job) {
	j.Out, j.Used, j.Err = buffer.Seg{}, compress.None, nil
	switch {
	case j.Ring == nil:
		j.Err = fmt.Errorf("card: no keyring: %w", ErrJob)
	case j.Op == Seal:
		j.Err = e.seal(j)
	case j.Op == Open:
		j.Err = e.open(j)
	default:
		j.Err = fmt.Errorf("card: operation %d: %w", j.Op, ErrJob)
	}
	j.input()
}

// seal compresses and encrypts.
func (e *engine) seal(j *Job) error {
	body, ok := j.plain()
	if !ok {
		return fmt.Errorf("card: seal %d bytes: %w", j.size(), ErrJob)
	}
	if j.Codec != compress.None {
		if n, ok := e.coder.Compress(e.scratch, body, j.Codec); ok {
			body, j.Used = e.scratch[:n], j.Codec
		}
	}
	key, err := j.Ring.seal.take(len(body), j.Now)
	if err != nil {
		return err
	}
	n := len(body) + Overhead
	out := j.vessel(n)
	p := out.Bytes()[:n]
	Header{Len: n, Codec: j.Used, Epoch: uint8(key.number)}.put(p)
	setNonce(&j.nonce, j.Flow, j.Counter)
	if err := e.crypt.seal(key.aead, &j.nonce, p, body); err != nil {
		out.Release()
		return fmt.Errorf("card: flow %d record %d: %w", j.Flow, j.Counter, err)
	}
	j.Out = out.Seg(0, n)
	return nil
}

// plain returns the bytes that a Seal job was given.
func (j *Job) plain() (body []byte, ok bool) {
	n := j.size()
	switch {
	case n < 1 || n > buffer.Most:
		return nil, false
	case j.Slab == nil:
		return j.In.P, true
	case len(j.Slab.Bytes()) < n+Overhead:
		return nil, false
	}
	return j.Slab.Bytes()[HeaderLen : HeaderLen+n], true
}

// size returns the length of a job's input.
func (j *Job) size() int {
	if j.Slab == nil {
		return j.In.Len()
	}
	return j.N
}

// vessel returns the slab for a record of n bytes. A job with a slab of its own
// is sealed around its plain text; compressed text comes from the scratch, so
// the slab is free then. But a record that leaves most of that empty goes to one of its
// size: it may wait long in the send queue.
func (j *Job) vessel(n int) *buffer.Buf {
	if j.Slab == nil || wasteful(n, len(j.Slab.Bytes())) {
		return buffer.Get(n)
	}
	out := j.Slab
	j.Slab = nil
	return out
}

// wasteful reports whether a slab of so many bytes is much larger than n bytes need:
// three times, and twice if it is large itself.
func wasteful(n, slab int) bool {
	times := 3
	if slab > buffer.Plain+buffer.Slack {
		times = 2
	}
	return times*buffer.Size(n) <= slab
}

// open decrypts in place where the record has a slab of its own, else into a
// new one: bytes that came as a Seg may be shared.
func (e *engine) open(j *Job) error {
	record, err := j.record()
	if err != nil {
		return err
	}
	h, err := ParseHeader(record)
	if err != nil {
		return err
	}
	if h.Len != len(record) {
		return fmt.Errorf("card: record of %d bytes in %d: %w", h.Len, len(record), ErrMalformed)
	}
	key, number, err := j.Ring.open.find(j.Since, h.Epoch)
	if err != nil {
		return err
	}
	setNonce(&j.nonce, j.Flow, j.Counter)
	n := h.Len - Overhead
	var out *buffer.Buf
	from := 0
	dst := e.scratch
	switch {
	case h.Codec != compress.None:
	case j.Slab != nil:
		out, from, j.Slab = j.Slab, HeaderLen, nil
		dst = out.Bytes()[from:]
	default:
		out = buffer.Get(n)
		dst = out.Bytes()
	}
	if err := e.crypt.open(key, &j.nonce, dst[:n], record); err != nil {
		if out != nil {
			out.Release()
		}
		return fmt.Errorf("card: flow %d record %d: %w", j.Flow, j.Counter, err)
	}
	if err := j.Ring.open.opened(number); err != nil {
		if out != nil {
			out.Release()
		}
		return err
	}
	j.Used = h.Codec
	if out != nil {
		j.Out = out.Seg(from, from+n)
		return nil
	}
	return e.unpack(j, e.scratch[:n])
}

// unpack decompresses to a slab of its own, of the result's size.
func (e *engine) unpack(j *Job, packed []byte) error {
	out := buffer.Get(compress.Size(packed, j.Used))
	n, err := e.coder.Decompress(out.Bytes(), packed, j.Used)
	if err != nil {
		out.Release()
		return fmt.Errorf("card: flow %d record %d: %w: %w", j.Flow, j.Counter, ErrMalformed, err)
	}
	if !wasteful(n, len(out.Bytes())) {
		j.Out = out.Seg(0, n)
		return nil
	}
	j.Out = buffer.Copy(out.Bytes()[:n])
	out.Release()
	return nil
}

// record returns the bytes that an Open job was given.
func (j *Job) record() ([]byte, error) {
	if j.Slab == nil {
		return j.In.P, nil
	}
	if j.N < 0 || j.N > len(j.Slab.Bytes()) {
		return nil, fmt.Errorf("card: open %d bytes: %w", j.N, ErrJob)
	}
	return j.Slab.Bytes()[:j.N], nil
}
