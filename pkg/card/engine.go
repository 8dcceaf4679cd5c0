package card

import (
	"fmt"

	"hawser/pkg/buffer"
	"hawser/pkg/compress"
)

// engine does a job's work in the calling goroutine. Each thread of a card
// has one.
type engine struct {
	coder   *compress.Coder
	scratch []byte // compressed plain text between the two steps
}

func newEngine() (*engine, error) {
	c, err := compress.NewCoder()
	if err != nil {
		return nil, err
	}
	return &engine{coder: c, scratch: make([]byte, compress.Room)}, nil
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

// seal encrypts around the plain text in its slab. Compressed text comes from
// the scratch instead, so the plain text's slab is free for the record. A
// short record goes to a small slab: it may wait long in the send queue.
func (e *engine) seal(j *Job) error {
	if j.Slab == nil || j.N < 1 || j.N > buffer.Plain || len(j.Slab.Bytes()) < j.N+Overhead {
		return fmt.Errorf("card: seal %d bytes: %w", j.N, ErrJob)
	}
	body := j.Slab.Bytes()[HeaderLen : HeaderLen+j.N]
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
	out := j.Slab
	if n <= buffer.Small && len(out.Bytes()) > buffer.Small {
		out = buffer.Get(n)
	} else {
		j.Slab = nil // it becomes the result
	}
	p := out.Bytes()
	Header{Len: n, Codec: j.Used, Epoch: uint8(key.number)}.put(p)
	setNonce(&j.nonce, j.Flow, j.Counter)
	key.aead.Seal(p[HeaderLen:HeaderLen], j.nonce[:], body, p[:HeaderLen])
	j.Out = out.Seg(0, n)
	return nil
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
	aead, number, err := j.Ring.open.find(h.Epoch)
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
	if _, err := aead.Open(dst[:0], j.nonce[:], record[HeaderLen:], record[:HeaderLen]); err != nil {
		if out != nil {
			out.Release()
		}
		return fmt.Errorf("card: flow %d record %d: %w", j.Flow, j.Counter, ErrForged)
	}
	j.Ring.open.opened(number)
	j.Used = h.Codec
	if out != nil {
		j.Out = out.Seg(from, from+n)
		return nil
	}
	return e.unpack(j, e.scratch[:n])
}

// unpack decompresses to a slab of its own, of the result's size.
func (e *engine) unpack(j *Job, packed []byte) error {
	out := buffer.Get(buffer.Plain)
	n, err := e.coder.Decompress(out.Bytes(), packed, j.Used)
	if err != nil {
		out.Release()
		return fmt.Errorf("card: flow %d record %d: %w: %w", j.Flow, j.Counter, ErrMalformed, err)
	}
	if n > buffer.Small {
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
