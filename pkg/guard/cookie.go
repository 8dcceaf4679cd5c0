package guard

import (
	"encoding/binary"
	"time"

	"github.com/dchest/siphash"
)

// SlotTime is how long one key makes cookies. It is accepted for one slot
// more, so that a cookie lives between one and two of them.
const SlotTime = 64 * time.Second

// A cookie, from its highest bit on: the parity of its slot, whether a window
// was offered, the class of the segment size (3 bits); where the client has no
// timestamps to carry them, the class of its window scale (3) and SACK (1);
// the MAC in what is left.
const (
	paritySlot  = 31
	offeredBit  = 30
	sizeShift   = 27
	scaleShift  = 24
	sackBit     = 23
	stampedBits = 27 // of the MAC
	plainBits   = 23 // of the MAC, without timestamps
)

// The low bits of the timestamp in a SYN-ACK: 4 for the scale, 15 for none,
// and one for SACK.
const (
	stampBits    = 5
	stampMask    = 1<<stampBits - 1
	stampNoScale = 15
)

// sizes are the segment sizes that a cookie can say; the client's is rounded
// down. 1460 and 1440 fill an Ethernet frame, 1380 to 1420 tunnels.
var sizes = [8]uint16{LeastMSS, 536, 1220, 1300, 1380, 1420, 1440, 1460}

// scales are the window scales that a cookie without timestamps can say. A
// scale is rounded down: the client's window then looks smaller than it is.
var scales = [8]int8{NoScale, 0, 2, 4, 6, 7, 8, 10}

// Ends are the two ends of a client's connection. IPv4 addresses stand in
// their mapped form.
type Ends struct {
	Client, Server         [16]byte
	ClientPort, ServerPort uint16
}

// Jar holds the keys of the cookies. It is never changed, so any goroutine may
// use it at any time.
//
// A forged ACK is taken for a valid one with a probability of 2^-27, or 2^-23
// without timestamps, whatever the forger knows of other connections: 100,000
// a second succeed once in 22 minutes, or in 84 s.
type Jar struct {
	first time.Time // when the first slot began
	slot  int64
	keys  [2][2]uint64 // by the slot's parity
}

// Turn returns the jar for a moment: j itself within a slot, else one with a
// fresh key. It never turns back: of two goroutines the one that has looked at the clock
// first may come second. Nor does it mind a clock that is set. random fills its argument;
// j may be nil.
func (j *Jar) Turn(now time.Time, random func([]byte)) *Jar {
	first, slot := now, int64(0)
	if j != nil {
		if first, slot = j.first, int64(now.Sub(j.first)/SlotTime); slot <= j.slot {
			return j
		}
	}
	next := &Jar{first: first, slot: slot}
	for i := range next.keys {
		var p [16]byte
		random(p[:])
		next.keys[i] = [2]uint64{binary.LittleEndian.Uint64(p[:]), binary.LittleEndian.Uint64(p[8:])}
	}
	if j != nil && j.slot == slot-1 {
		next.keys[j.slot&1] = j.keys[j.slot&1]
	}
	return next
}

// Keys returns the parity of the jar's slot, whose key makes cookies, and the
// keys by the parity of their slots. They are for the kernel's copy of the jar,
// nobody else.
func (j *Jar) Keys() (parity uint32, keys [2][2]uint64) { return uint32(j.slot & 1), j.keys }

// Bake returns the sequence number of the SYN-ACK to h, and the timestamp to
// send with it if clock is the time in timestamp units. offered says that the
// SYN-ACK opens a window.
func (j *Jar) Bake(e *Ends, h Hello, offered bool, clock uint32) (isn, stamp uint32) {
	c := uint32(j.slot&1)<<paritySlot | class16(h.MSS)<<sizeShift
	if offered {
		c |= 1 << offeredBit
	}
	if !h.Stamps {
		c |= class8(h.Scale) << scaleShift
		if h.SACK {
			c |= 1 << sackBit
		}
		return c | j.mac(e, h.ISN, c, plainBits), 0
	}
	bits := uint32(stampNoScale)
	if h.Scale >= 0 {
		bits = uint32(h.Scale)
	}
	if h.SACK {
		bits |= 1 << 4
	}
	stamp = clock&^stampMask | bits
	if int32(stamp-clock) > 0 {
		stamp -= 1 << stampBits // must not be ahead of what later segments say
	}
	return c | j.mac(e, h.ISN, c, stampedBits), stamp
}

// Check says whether a segment acknowledges a cookie of this jar that was
// given to a client whose initial sequence number was isn. It returns what the
// client's SYN has said, but for TSVal, and whether a window was offered.
// stamped says that the segment has a timestamp, which echoes echo.
func (j *Jar) Check(e *Ends, isn, cookie uint32, stamped bool, echo uint32) (h Hello, offered, ok bool) {
	bits := plainBits
	if stamped {
		bits = stampedBits
	}
	c := cookie >> bits << bits
	if j.mac(e, isn, c, bits) != cookie&(1<<bits-1) {
		return Hello{}, false, false
	}
	h = Hello{ISN: isn, MSS: sizes[c>>sizeShift&7], Stamps: stamped}
	if stamped {
		h.SACK = echo>>4&1 == 1
		if h.Scale = int8(echo & 15); h.Scale > maxScale {
			h.Scale = NoScale
		}
	} else {
		h.SACK = c>>sackBit&1 == 1
		h.Scale = scales[c>>scaleShift&7]
	}
	return h, c>>offeredBit&1 == 1, true
}

// mac returns the low bits of a MAC over all that a cookie vouches for.
func (j *Jar) mac(e *Ends, isn, c uint32, bits int) uint32 {
	var p [48]byte
	copy(p[:], e.Client[:])
	copy(p[16:], e.Server[:])
	binary.LittleEndian.PutUint16(p[32:], e.ClientPort)
	binary.LittleEndian.PutUint16(p[34:], e.ServerPort)
	binary.LittleEndian.PutUint32(p[36:], isn)
	binary.LittleEndian.PutUint32(p[40:], c)
	p[44] = byte(bits)
	k := &j.keys[c>>paritySlot]
	return uint32(siphash.Hash(k[0], k[1], p[:])) & (1<<bits - 1)
}

// class16 is the class of the greatest size that is not above mss.
func class16(mss uint16) uint32 {
	i := len(sizes) - 1
	for i > 0 && sizes[i] > mss {
		i--
	}
	return uint32(i)
}

// class8 is the class of the greatest scale that is not above scale.
func class8(scale int8) uint32 {
	i := len(scales) - 1
	for i > 0 && scales[i] > scale {
		i--
	}
	return uint32(i)
}
