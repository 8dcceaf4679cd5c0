package link

import (
	"encoding/binary"
	"fmt"

	"hawser/pkg/wire"
)

// duct is one ordered stream of bytes each way. writev and readv are each called
// by one goroutine at a time, the rest by any.
type duct interface {
	source
	// writev writes all of bufs and returns when the transport has taken the
	// last byte, but for what fits one packet. It may overwrite the elements
	// of bufs, not their bytes.
	writev(bufs [][]byte) error
	// tryWritev writes what the transport takes without blocking and returns how
	// many bytes that was. It leaves bufs as it is.
	tryWritev(bufs [][]byte) (int, error)
	// closeWrite ends the stream towards the peer after what was written.
	closeWrite() error
}

// Strand is one ordered run of records each way of a connection. Send, TrySend
// and Resume belong to one goroutine at a time, and so do Receive and Buffered.
type Strand struct {
	conn *Conn
	duct duct

	// Send's goroutine only.
	seal  *sealer
	arena []byte
	vec   [][]byte
	begun bool // vec holds what TrySend has left

	// Receive's goroutine only.
	in *recordReader
}

func (s *Strand) init(c *Conn, d duct, k keys) {
	*s = Strand{
		conn: c, duct: d,
		seal: k.out, arena: make([]byte, 0, arenaSize), vec: make([][]byte, 0, 64),
		in: newRecordReader(d, k.in),
	}
}

// Send writes a batch of records with as few system calls as possible and
// returns when the transport has taken all of it. While the link is full that
// takes as long as the link needs: returning is the signal that there is room.
// A Block has 1 to wire.MaxBlock bytes and stays the caller's; a Body has at
// most wire.MaxBody bytes and is released and cleared, also on error. After an
// error the connection has ended.
func (s *Strand) Send(batch []wire.Record) error {
	err := s.conn.cause()
	if err == nil {
		err = s.conn.end("send", s.write(batch))
	}
	release(batch)
	return err
}

// TrySend is Send without blocking. If the transport does not take all of the
// batch at once it returns false and keeps it: Resume, with the same batch,
// must be the next call. A batch of which not even the headers fit one write is
// not begun.
func (s *Strand) TrySend(batch []wire.Record) (done bool, err error) {
	if err = s.conn.cause(); err == nil {
		done, err = s.try(batch)
		err = s.conn.end("send", err)
	}
	if done || err != nil {
		release(batch)
	}
	return done && err == nil, err
}

// Resume sends what TrySend has left and returns as Send does.
func (s *Strand) Resume(batch []wire.Record) error {
	if !s.begun {
		return s.Send(batch)
	}
	s.begun = false
	err := s.conn.cause()
	if err == nil {
		err = s.conn.end("send", s.flush())
	}
	release(batch)
	return err
}

// try does the work of TrySend.
func (s *Strand) try(batch []wire.Record) (done bool, err error) {
	size := 0
	for i := range batch {
		size += prefixSize + len(batch[i].Block) + tagSize
	}
	if size > cap(s.arena) || 2*len(batch) > maxVectors {
		return false, nil
	}
	if err := s.append(batch); err != nil {
		return false, err
	}
	n, err := s.duct.tryWritev(s.vec)
	if err != nil {
		return false, err
	}
	if rest := consume(s.vec, n); len(rest) > 0 {
		left := copy(s.vec, rest)
		clear(s.vec[left:])
		s.vec, s.begun = s.vec[:left], true
		return false, nil
	}
	clear(s.vec)
	s.vec, s.arena = s.vec[:0], s.arena[:0]
	return true, nil
}

// release gives the bodies of a batch back.
func release(batch []wire.Record) {
	for i := range batch {
		batch[i].Body.Release()
		batch[i].Body = wire.Record{}.Body
	}
}

// write seals the headers into the arena and sends them with the bodies.
func (s *Strand) write(batch []wire.Record) error {
	if err := s.append(batch); err != nil {
		return err
	}
	return s.flush()
}

// append seals the headers into the arena and adds them and the bodies to what
// is to be written. It flushes when there is no room for more.
func (s *Strand) append(batch []wire.Record) error {
	var bytes, records uint64
	for i := range batch {
		rec := &batch[i]
		if len(rec.Block) == 0 || len(rec.Block) > wire.MaxBlock || rec.Body.Len() > wire.MaxBody {
			return fmt.Errorf("%w: block of %d, body of %d bytes to send", ErrRecord, len(rec.Block), rec.Body.Len())
		}
		size := prefixSize + len(rec.Block) + tagSize
		if len(s.arena)+size > cap(s.arena) || len(s.vec)+2 > maxVectors {
			if err := s.flush(); err != nil {
				return err
			}
		}
		if err := s.appendHeader(rec); err != nil {
			return err
		}
		if rec.Body.Len() > 0 {
			s.vec = append(s.vec, rec.Body.P)
		}
		bytes += uint64(size + rec.Body.Len())
		records++
	}
	s.conn.bytesOut.Add(bytes)
	s.conn.recordsOut.Add(records)
	return nil
}

// appendHeader seals one header into the arena, which has room for it: the
// arena must not move while vec points into it.
func (s *Strand) appendHeader(rec *wire.Record) error {
	start := len(s.arena)
	s.arena = binary.BigEndian.AppendUint16(s.arena, uint16(len(rec.Block)+tagSize))
	s.arena = binary.BigEndian.AppendUint16(s.arena, uint16(rec.Body.Len()))
	var err error
	s.arena, err = s.seal.seal(s.arena, s.arena[start:], rec.Block)
	s.vec = append(s.vec, s.arena[start:])
	return err
}

func (s *Strand) flush() error {
	vec := s.vec
	s.vec, s.arena = s.vec[:0], s.arena[:0]
	if len(vec) == 0 {
		return nil
	}
	err := s.duct.writev(vec)
	clear(vec) // no reference to a body outlives the call
	return err
}

// Receive returns the next record. Its Block is valid until the next call of
// Receive; its Body, contiguous in a slab of its own, passes to the caller.
// After an error the connection has ended. A receiver calls Receive until it
// returns an error: the partial record is given back then.
func (s *Strand) Receive() (wire.Record, error) {
	c := s.conn
	err := c.cause()
	if err == nil {
		_, err = s.in.ready(false)
		err = c.end("receive", err)
	}
	if err != nil {
		s.in.drop()
		return wire.Record{}, err
	}
	rec := s.in.take()
	c.recordsIn.Add(1)
	c.bytesIn.Add(uint64(prefixSize + len(rec.Block) + tagSize + rec.Body.Len()))
	return rec, nil
}

// Buffered says whether Receive would return at once. It reads what has
// arrived, and leaves the last record's Block as it is.
func (s *Strand) Buffered() bool {
	if s.conn.cause() != nil {
		return true
	}
	done, _ := s.in.ready(true)
	return done
}
