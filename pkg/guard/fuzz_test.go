package guard

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

func tcpSum(e *Ends, tcp []byte) uint16 {
	sum := checksum.Checksum(e.Client[12:], checksum.Checksum(e.Server[12:], protoTCP))
	return checksum.Checksum(tcp, checksum.Combine(sum, uint16(len(tcp))))
}

// tcpRight says that the TCP checksum of an IPv4 packet holds.
func tcpRight(p []byte) bool {
	sum := checksum.Combine(checksum.Checksum(p[12:20], protoTCP), uint16(len(p)-20))
	return checksum.Checksum(p[20:], sum) == 0xffff
}

// FuzzSYN: no header makes the parser fail, and what it takes comes back from
// a cookie and from our own SYN-ACK.
func FuzzSYN(f *testing.F) {
	f.Add(syn(1, 2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3, 3, 7), false)
	f.Add(syn(1, 2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2), true)
	f.Add(syn(1, 3, 0), false)
	j := (*Jar)(nil).Turn(t0, random(9))
	f.Fuzz(func(t *testing.T, tcp []byte, v6 bool) {
		if len(tcp) >= tcpMin {
			Stamps(tcp)
		}
		h, err := ParseSYN(tcp, v6)
		if err != nil {
			return
		}
		e := ends6()
		s := j.Answer(e, h, Offer{MSS: 1440, Scale: 7, Window: uint16(h.TSVal)}, h.TSVal*3)
		p := s.Append(nil, e, true, ToClient)
		if !right(p, true) {
			t.Fatal("wrong checksum")
		}
		back, offered, ok := j.Check(e, h.ISN, s.Seq, h.Stamps, s.TSVal)
		if !ok || offered != (s.Window > 0) || back.SACK != h.SACK || back.MSS > h.MSS || back.Scale > h.Scale {
			t.Fatalf("%+v came back as %+v, %v", h, back, ok)
		}
		if a, err := ParseSYN(p[40:], true); err != nil || a.Stamps != h.Stamps || a.SACK != h.SACK {
			t.Fatalf("our answer reads %+v, %v", a, err)
		}
	})
}

// FuzzFlow: no segment makes a flow fail in any state; translated back and
// forth a header is what it was, and a checksum that was right stays right.
func FuzzFlow(f *testing.F) {
	f.Add(ack(clientISN+1, cookieISN+1, 5, 91, 5010, cookieISN+2, cookieISN+9), uint16(10), uint8(3))
	f.Add(ack(clientISN, cookieISN+1, 5, 91, 5010), uint16(0), uint8(0))
	f.Add(syn(clientISN, 8, 10, 1, 2, 3, 4), uint16(0), uint8(1))
	f.Fuzz(func(t *testing.T, tcp []byte, payload uint16, state uint8) {
		if len(tcp) < tcpMin || len(tcp) > 60 {
			return
		}
		if end := int(tcp[12]>>4) * 4; end < tcpMin || end > len(tcp) { // segmentOf sees to that
			return
		}
		g := waiting(state&4 > 0)
		switch state & 3 {
		case 0:
			g.Hear(tcp, int(payload))
			return
		case 1:
			g.Join(4096)
			g.Hear(tcp, int(payload))
			g.Joined(tcp, ourScale, 1)
			return
		case 2:
			join(t, &g, 4096)
			if n, ok := g.Fresh(tcp, int(payload)); ok {
				g.Took(n)
			}
		case 3:
			g.Serve(0, int(int16(payload)))
			join(t, &g, 4096)
		}
		e := ends4()
		fix(e, tcp)
		before := bytes.Clone(tcp)
		g.Outbound(tcp, int(payload), true)
		if tcpSum(e, before) != tcpSum(e, tcp) {
			t.Fatalf("checksum: % x\nbecame   % x", before, tcp)
		}
		g.Inbound(tcp)
	})
}
