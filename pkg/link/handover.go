package link

import (
	"encoding/binary"
	"net"
)

// tlsHeaderSize is the header of a TLS record: type, version, length
// (RFC 8446 section 5.1).
const tlsHeaderSize = 5

// boundedConn is the connection under TLS. Its Read never returns bytes of
// more than one TLS record, nor of a header and its record together: crypto/tls
// asks for more than it needs, and would swallow the first bytes of what
// follows its last record.
type boundedConn struct {
	net.Conn
	header [tlsHeaderSize]byte
	have   int // bytes of header that have been read
	left   int // bytes of the current record that have not
}

// Read reads up to the end of the TLS record, or record header, under way.
func (c *boundedConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.left > 0 {
		n, err := c.Conn.Read(p[:min(len(p), c.left)])
		c.left -= n
		return n, err
	}
	n, err := c.Conn.Read(p[:min(len(p), tlsHeaderSize-c.have)])
	copy(c.header[c.have:], p[:n])
	c.have += n
	if c.have == tlsHeaderSize {
		c.have = 0
		c.left = int(binary.BigEndian.Uint16(c.header[3:]))
	}
	return n, err
}
