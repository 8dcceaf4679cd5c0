package link

import (
	"errors"
	"io"
)

// quicDuct is one ordered stream each way of a QUIC connection.
type quicDuct struct {
	pipe   *quicPipe
	number int // of urgent ones: 0, or 1 for the twin

	out     quicWriter
	staging []byte // the writer's

	// The reader's.
	inStream io.Reader // nil until the peer's stream has come
	in       []byte    // in[from:to] has been read and not taken
	from, to int
	inErr    error // follows in[from:to]
}

// quicWriter is a stream as a duct writes to it.
type quicWriter interface {
	io.WriteCloser
	TryWriteAll(p []byte) error
}

func newQUICDuct(p *quicPipe, out quicWriter, buffer int) quicDuct {
	return quicDuct{pipe: p, out: out, staging: make([]byte, 0, buffer), in: make([]byte, buffer)}
}

// first reports whether the duct is the connection's first, which carries bulk.
func (d *quicDuct) first() bool { return d == &d.pipe.quicDuct }

func (d *quicDuct) readv(bufs [][]byte, try bool) (int, error) {
	if d.from == d.to {
		if d.inErr == nil && try {
			return 0, nil
		}
		if d.inErr == nil {
			d.from = 0
			d.to, d.inErr = d.read()
			d.inErr = quicError(d.inErr)
		}
		if d.to == d.from && d.inErr != nil {
			return 0, d.inErr
		}
	}
	total := 0
	for _, b := range bufs {
		n := copy(b, d.in[d.from:d.to])
		d.from += n
		total += n
	}
	return total, nil
}

// read reads from the peer's stream. An urgent one comes with its first record.
func (d *quicDuct) read() (int, error) {
	if d.inStream == nil {
		stream, err := d.pipe.uni.accept(d.pipe.conn, d.number)
		if err != nil {
			return 0, err
		}
		d.inStream = stream
	}
	return d.inStream.Read(d.in)
}

// tryWritev hands a little to the library, which takes it whatever the
// congestion control says: who calls it bounds how much that is. Of bulk it takes
// nothing: that would wait there and not here, where other links can have it.
func (d *quicDuct) tryWritev(bufs [][]byte) (int, error) {
	if d.first() {
		return 0, nil
	}
	defer func() { d.staging = d.staging[:0] }()
	for _, b := range bufs {
		if len(d.staging)+len(b) > cap(d.staging) {
			return 0, nil
		}
		d.staging = append(d.staging, b...)
	}
	d.pipe.regovern()
	switch err := d.out.TryWriteAll(d.staging); {
	case errors.Is(err, errWouldBlock):
		return 0, nil
	case err != nil:
		return 0, quicError(err)
	}
	return len(d.staging), nil
}

func (d *quicDuct) writev(bufs [][]byte) error {
	d.makeRoom(bufs)
	for _, b := range bufs {
		for len(b) > 0 {
			n := min(len(b), cap(d.staging)-len(d.staging))
			d.staging = append(d.staging, b[:n]...)
			b = b[n:]
			if len(d.staging) == cap(d.staging) {
				if err := d.flush(); err != nil {
					return err
				}
			}
		}
	}
	return d.flush()
}

// makeRoom lets a batch be handed over in one piece. After each the library runs
// dry until the writer has had a processor again, and what the pacing may make up
// for then is no more than the next piece: on a busy machine pieces of a
// millisecond's worth halve the rate.
func (d *quicDuct) makeRoom(bufs [][]byte) {
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	if have := cap(d.staging); min(total, quicBufferMost) > have {
		d.staging = make([]byte, 0, min(max(total, 2*have), quicBufferMost))
	}
}

func (d *quicDuct) flush() error {
	if len(d.staging) == 0 {
		return nil
	}
	d.pipe.regovern()
	_, err := d.out.Write(d.staging)
	d.staging = d.staging[:0]
	return quicError(err)
}

func (d *quicDuct) closeWrite() error { return quicError(d.out.Close()) }
