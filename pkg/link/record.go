package link

import (
	"encoding/binary"
	"fmt"
	"io"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
)

// A record on the wire: the length of the sealed block, the length of the
// body, both as 16-bit big-endian numbers, the sealed block, the body.
const (
	prefixSize = 4
	maxSealed  = wire.MaxBlock + tagSize
)

// Sizes of the record reader's memory, in bytes.
const (
	// scratchSize is one of the reader's two buffers.
	scratchSize = 16 << 10
	// bulkAhead is how far the reader reads in a stream of bulk where it does not
	// know what is next. What it reads of a body there must be copied.
	bulkAhead = 2 << 10
	// headSpare is how many bytes more than a bulk record's own header the next one
	// may have, by acknowledgements and longer numbers, to be read with its body: what
	// is missed of it costs a system call.
	headSpare = 64
	// bulkBody is the body length from which on the next is expected to be
	// long as well.
	bulkBody = 4 << 10
)

// source is the byte stream that a record reader reads.
type source interface {
	// readv fills the buffers in order and returns how many bytes it read: at
	// least one, or an error. With try it returns 0 instead of blocking.
	readv(bufs [][]byte, try bool) (int, error)
}

// recordReader cuts a byte stream into records. Header blocks are opened in
// its own memory; a body is read straight into the slab that its receiver
// gets, except for its first bytes: those that arrived with the header before
// (at most headSpare of a long body that follows a long one, bulkAhead where the
// stream had run dry between them, scratchSize otherwise) are copied.
//
// The block of the last record stays valid while the next one is being read:
// the two buffers take turns, and change at most once per record.
type recordReader struct {
	src  source
	open *sealer

	buf, spare []byte // buf[from:to] has been read and not yet parsed
	from, to   int

	begun  bool // room has been made for the record at buf[from:]
	head   int  // prefix and sealed block, in bytes; 0 until the prefix is known
	length int  // of the body
	body   *buffer.Buf
	got    int    // bytes of the body so far
	block  []byte // the opened block; nil until then
	bulk   bool   // the last body was long
	failed error
	vec    [3][]byte
}

func newRecordReader(src source, open *sealer) *recordReader {
	return &recordReader{src: src, open: open, buf: make([]byte, scratchSize), spare: make([]byte, scratchSize)}
}

// ready reads until a record is complete. With try it does not block and says
// false if that takes more than has arrived. After an error it returns true
// and the error for good.
func (r *recordReader) ready(try bool) (bool, error) {
	for r.failed == nil {
		done, err := r.parse()
		if done {
			return true, nil
		}
		if err == nil {
			var n int
			n, err = r.read(try)
			if n == 0 && err == nil && try {
				return false, nil
			}
		}
		r.failed = err
	}
	r.drop()
	return true, r.failed
}

// take returns the record that ready has completed.
func (r *recordReader) take() wire.Record {
	rec := wire.Record{Block: r.block}
	if r.body != nil {
		rec.Body = r.body.Seg(0, r.length)
	}
	r.bulk = r.length >= bulkBody
	r.body, r.block, r.head, r.got, r.length, r.begun = nil, nil, 0, 0, 0, false
	return rec
}

// drop gives a partial body back.
func (r *recordReader) drop() {
	if r.body != nil {
		r.body.Release()
		r.body = nil
	}
}

// parse goes as far as the bytes at hand allow and says whether a record is
// complete.
func (r *recordReader) parse() (bool, error) {
	if !r.begun {
		r.makeRoom()
	}
	if r.head == 0 {
		if r.to-r.from < prefixSize {
			return false, nil
		}
		if err := r.parsePrefix(); err != nil {
			return false, err
		}
	}
	if r.block == nil {
		if r.to-r.from < r.head {
			return false, nil
		}
		p := r.buf[r.from : r.from+r.head]
		block, err := r.open.open(p[:prefixSize], p[prefixSize:])
		if err != nil {
			return false, err
		}
		r.block = block
		r.from += r.head
		r.copyBody()
	}
	return r.got == r.length, nil
}

// makeRoom sees to it that the next header, and bulkAhead behind it, fit
// behind from. It moves to the other buffer so that the block that was handed
// out last stays as it is.
func (r *recordReader) makeRoom() {
	r.begun = true
	if len(r.buf)-r.from < prefixSize+maxSealed+bulkAhead {
		n := copy(r.spare, r.buf[r.from:r.to])
		r.buf, r.spare = r.spare, r.buf
		r.from, r.to = 0, n
	}
}

func (r *recordReader) parsePrefix() error {
	p := r.buf[r.from:]
	sealed, length := int(binary.BigEndian.Uint16(p)), int(binary.BigEndian.Uint16(p[2:]))
	if sealed <= tagSize || sealed > maxSealed || length > wire.MaxBody {
		return fmt.Errorf("%w: block %d of %d to %d bytes, body %d of at most %d bytes",
			ErrRecord, sealed, tagSize+1, maxSealed, length, wire.MaxBody)
	}
	r.head, r.length = prefixSize+sealed, length
	if length > 0 {
		r.body = buffer.Get(length)
	}
	return nil
}

// copyBody moves what has been read of the body behind the header.
func (r *recordReader) copyBody() {
	if r.body == nil {
		return
	}
	n := copy(r.body.Bytes()[r.got:r.length], r.buf[r.from:r.to])
	r.got += n
	r.from += n
}

// read asks the source once for what is missing: the rest of the header, the
// rest of the body, and something beyond.
func (r *recordReader) read(try bool) (int, error) {
	headLeft := 0
	if r.block == nil && r.head > 0 {
		headLeft = r.from + r.head - r.to
	}
	bodyLeft := r.length - r.got
	ahead := r.buf[r.to+headLeft:]
	switch {
	case r.length >= bulkBody:
		ahead = ahead[:min(len(ahead), r.head+headSpare)]
	case r.head == 0 && r.bulk:
		ahead = ahead[:min(len(ahead), bulkAhead)]
	}
	v := r.vec[:0]
	if headLeft > 0 {
		v = append(v, r.buf[r.to:r.to+headLeft])
	}
	if bodyLeft > 0 {
		v = append(v, r.body.Bytes()[r.got:r.length])
	}
	n, err := r.src.readv(append(v, ahead), try)
	if err != nil {
		return 0, r.endError(err)
	}
	r.account(n, headLeft, bodyLeft)
	return n, nil
}

// account enters n read bytes in the order in which read asked for them.
func (r *recordReader) account(n, headLeft, bodyLeft int) {
	inHead := min(n, headLeft)
	inBody := min(n-inHead, bodyLeft)
	r.to += n - inBody
	r.got += inBody
}

// endError tells an end between records from one within a record.
func (r *recordReader) endError(err error) error {
	if err != io.EOF {
		return err
	}
	if r.from == r.to && r.head == 0 {
		return ErrPeerClosed
	}
	return ErrTruncated
}
