package guard

import (
	"encoding/binary"
	"errors"
)

// TCP header layout (RFC 9293 section 3.1) and flags.
const (
	tcpMin = 20

	FlagFIN = 0x01
	FlagSYN = 0x02
	FlagRST = 0x04
	FlagPSH = 0x08
	FlagACK = 0x10
)

// Option kinds (RFC 9293, 7323, 2018).
const (
	optEnd       = 0
	optNop       = 1
	optMSS       = 2
	optScale     = 3
	optSACKOK    = 4
	optSACK      = 5
	optTimestamp = 8
)

// NoScale is Hello.Scale of a client that does not scale windows.
const NoScale = -1

const (
	maxScale = 14 // RFC 7323 section 2.3
	// LeastMSS is the least segment size that is believed. A smaller one is a
	// fault or an attack that makes us send many tiny segments.
	LeastMSS   = 216
	defaultMSS = 536  // RFC 9293 section 3.7.1, IPv4
	defaultMS6 = 1220 // the same for IPv6
)

// ErrOptions means that a header's options cannot be what a client sends:
// lengths that contradict each other, or an absurd segment size.
var ErrOptions = errors.New("absurd TCP options")

// Hello is what a client's SYN says.
type Hello struct {
	ISN    uint32 // its initial sequence number
	MSS    uint16 // the longest segment that it takes, in bytes
	Scale  int8   // shift of its windows; NoScale
	SACK   bool   // it takes selective acknowledgements
	Stamps bool   // it uses timestamps
	TSVal  uint32 // its timestamp
}

// ParseSYN reads the TCP header, options included, of a SYN. v6 says which
// default segment size applies. It returns ErrOptions.
func ParseSYN(tcp []byte, v6 bool) (Hello, error) {
	h := Hello{MSS: defaultMSS, Scale: NoScale}
	if v6 {
		h.MSS = defaultMS6
	}
	if len(tcp) < tcpMin {
		return h, ErrOptions
	}
	h.ISN = binary.BigEndian.Uint32(tcp[4:])
	end := int(tcp[12]>>4) * 4
	if end < tcpMin || end > len(tcp) {
		return h, ErrOptions
	}
	err := eachOption(tcp[tcpMin:end], func(kind byte, value []byte) bool {
		return h.take(kind, value)
	})
	if err == nil && h.MSS < LeastMSS {
		err = ErrOptions
	}
	return h, err
}

// take notes one option; false if its length is wrong.
func (h *Hello) take(kind byte, value []byte) bool {
	switch kind {
	case optMSS:
		if len(value) != 2 {
			return false
		}
		h.MSS = binary.BigEndian.Uint16(value)
	case optScale:
		if len(value) != 1 {
			return false
		}
		h.Scale = int8(min(value[0], maxScale))
	case optSACKOK:
		h.SACK = true
		return len(value) == 0
	case optTimestamp:
		if len(value) != 8 {
			return false
		}
		h.Stamps, h.TSVal = true, binary.BigEndian.Uint32(value)
	}
	return true
}

// eachOption calls f with each option's kind and value until f says no. It
// returns ErrOptions if f did, or if a length leads out of the options.
func eachOption(p []byte, f func(kind byte, value []byte) bool) error {
	for len(p) > 0 {
		switch {
		case p[0] == optEnd:
			return nil
		case p[0] == optNop:
			p = p[1:]
			continue
		case len(p) < 2 || p[1] < 2 || int(p[1]) > len(p):
			return ErrOptions
		}
		if !f(p[0], p[2:p[1]]) {
			return ErrOptions
		}
		p = p[p[1]:]
	}
	return nil
}

// stampsAt returns where in a header the 8 bytes of the timestamp option are;
// 0 is nowhere.
func stampsAt(tcp []byte) int {
	end := int(tcp[12]>>4) * 4
	if end <= tcpMin || end > len(tcp) {
		return 0
	}
	// What nearly every segment looks like: NOP, NOP, timestamp.
	if o := tcp[tcpMin:end]; len(o) >= 12 && o[0] == optNop && o[1] == optNop && o[2] == optTimestamp && o[3] == 10 {
		return tcpMin + 4
	}
	for at := tcpMin; at < end && tcp[at] != optEnd; {
		if tcp[at] == optNop {
			at++
			continue
		}
		if at+2 > end || tcp[at+1] < 2 || at+int(tcp[at+1]) > end {
			return 0
		}
		if tcp[at] == optTimestamp && tcp[at+1] == 10 {
			return at + 2
		}
		at += int(tcp[at+1])
	}
	return 0
}

// Stamps returns the timestamp and its echo of a segment; ok is false when it
// has none.
func Stamps(tcp []byte) (val, echo uint32, ok bool) {
	at := stampsAt(tcp)
	if at == 0 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint32(tcp[at:]), binary.BigEndian.Uint32(tcp[at+4:]), true
}
