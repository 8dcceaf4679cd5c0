package netns

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Classic BPF programs. The socket filter sees a frame from its Ethernet
// header on, the fanout program from its IP header on.

const (
	protoICMP = 1
	protoTCP  = 6
	protoFrag = 44 // IPv6's fragment header
	protoIP6I = 58 // ICMPv6

	etherLen = 14
	// wholeFrame is more than a frame can have: nothing is cut.
	wholeFrame = 1 << 18
	// scratchKey is the scratch word that holds the client's address.
	scratchKey = 0
)

type program = []bpf.Instruction

// when runs yes if the accumulator is value, else no. Both must return.
func when(value uint32, yes, no program) program {
	jump := bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipFalse: uint8(len(yes))}
	return slices.Concat(program{jump}, yes, no)
}

func load(offset uint32, size int) bpf.Instruction {
	return bpf.LoadAbsolute{Off: offset, Size: size}
}

func loadX(offset uint32, size int) bpf.Instruction {
	return bpf.LoadIndirect{Off: offset, Size: size}
}

// segments says which TCP segments a filter passes.
type segments int

const (
	everySegment segments = iota
	noSYN                 // all but SYNs; a SYN-ACK is none
	onlySYN
)

// of returns the program that decides by the TCP flags, which load puts into
// the accumulator.
func (s segments) of(drop, pass program, load ...bpf.Instruction) program {
	const syn, ack = 0x02, 0x10
	flags := append(program(load), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: syn | ack})
	switch s {
	case noSYN:
		return append(flags, when(syn, drop, pass)...)
	case onlySYN:
		return append(flags, when(syn, pass, drop)...)
	}
	return pass
}

// captureFilter passes what Capture promises, of TCP only which.
func captureFilter(which segments) program {
	drop, pass := program{bpf.RetConstant{Val: 0}}, program{bpf.RetConstant{Val: wholeFrame}}
	other := pass // ICMP errors, and fragments of TCP, which are only counted
	if which == onlySYN {
		other = drop
	}
	ifTCP := when(protoTCP, other, drop)
	tcp4 := which.of(drop, pass, bpf.LoadMemShift{Off: etherLen}, loadX(etherLen+13, 1))
	tcp6 := which.of(drop, pass, load(etherLen+40+13, 1))

	// Destination unreachable (3) that quotes TCP; X is the length of the outer
	// IP header, the quoted one follows 8 bytes of ICMP.
	error4 := slices.Concat(program{bpf.LoadMemShift{Off: etherLen}, loadX(etherLen, 1)},
		when(3, append(program{loadX(etherLen+8+9, 1)}, ifTCP...), drop))
	piece4 := append(program{load(etherLen+9, 1)}, ifTCP...)
	piece6 := append(program{load(etherLen+40, 1)}, ifTCP...)
	v4 := slices.Concat(
		program{load(etherLen+6, 2), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipFalse: uint8(len(piece4))}}, piece4,
		program{load(etherLen+9, 1)},
		when(protoTCP, tcp4, when(protoICMP, error4, drop)))

	// Types 1 to 4 are the errors of ICMPv6 (RFC 4443 section 2.1).
	error6 := slices.Concat(program{load(etherLen+40, 1),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: 4, SkipTrue: 1}}, drop,
		program{load(etherLen+40+8+6, 1)}, ifTCP)
	v6 := append(program{load(etherLen+6, 1)}, when(protoTCP, tcp6, when(protoIP6I, error6, when(protoFrag, piece6, drop)))...)

	return append(program{load(12, 2)}, when(0x0800, v4, when(0x86dd, v6, drop))...)
}

// incomingOnly is a socket filter's program for frames that arrive; others are dropped.
func incomingOnly(filter program) program {
	return append(program{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}, filter...)
}

// fanoutProgram returns the number of the worker, below n, that a frame is for.
// An ICMP error quotes a packet of ours, so there the ends are exchanged.
//
// FanoutSource goes by the local port, too, in connections of the stack itself:
// those with an address of hubs (invalid where there is none).
func fanoutProgram(mode FanoutMode, n int, hubs hubAddrs) program {
	program := fanoutAll(mode, n)
	if mode == FanoutLocalPort || !hubs.v4.IsValid() {
		return program
	}
	return append(ownConnections(n, hubs), program...)
}

// hubAddrs are the stack's own addresses.
type hubAddrs struct{ v4, v6 netip.Addr }

// ownConnections returns for frames of the stack's own connections, and passes
// others on. Of an IPv6 address it looks at the last word and the first: the
// worst that a likeness can do is to choose another worker for a connection.
func ownConnections(n int, hubs hubAddrs) program {
	end := program{bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(n)}, bpf.RetA{}}
	a4 := hubs.v4.As4()
	hub4 := binary.BigEndian.Uint32(a4[:])
	tcp4 := unless(hub4, program{load(16, 4)}, slices.Concat(program{bpf.LoadMemShift{Off: 0}, loadX(2, 2)}, end))
	icmp4 := unless(hub4, program{bpf.LoadMemShift{Off: 0}, loadX(8+12, 4)}, slices.Concat(quotedPorts4(), program{loadX(8, 2)}, end))
	v4 := slices.Concat(only(load(9, 1), protoTCP, tcp4), only(load(9, 1), protoICMP, icmp4))
	var v6 program
	if hubs.v6.IsValid() {
		a6 := hubs.v6.As16()
		first, last := binary.BigEndian.Uint32(a6[:]), binary.BigEndian.Uint32(a6[12:])
		tcp6 := unless(last, program{load(36, 4)}, unless(first, program{load(24, 4)}, slices.Concat(program{load(40+2, 2)}, end)))
		icmp6 := unless(last, program{load(40+8+20, 4)}, unless(first, program{load(40+8+8, 4)}, slices.Concat(program{load(40+8+40, 2)}, end)))
		v6 = slices.Concat(only(load(6, 1), protoTCP, tcp6), only(load(6, 1), protoIP6I, icmp6))
	}
	return slices.Concat(onlyVersion(4, v4), onlyVersion(6, v6))
}

// unless runs then if what look loads is value; it goes on behind otherwise.
func unless(value uint32, look, then program) program {
	return slices.Concat(look, program{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value, SkipTrue: uint8(len(then))}}, then)
}

// only runs then if look loads value.
func only(look bpf.Instruction, value uint32, then program) program {
	return unless(value, program{look}, then)
}

// onlyVersion runs then for packets of an IP version.
func onlyVersion(version uint32, then program) program {
	return unless(version, program{load(0, 1), bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4}}, then)
}

// quotedPorts4 makes X the offset, less 8, of the ports that an ICMP error
// quotes; X is the length of the outer IP header before.
func quotedPorts4() program {
	return program{loadX(8, 1), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2}, bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.TAX{}}
}

// fanoutAll is the program for connections that clients make, or for those of
// the stack alone.
func fanoutAll(mode FanoutMode, n int) program {
	end := slices.Concat(mixing(mode), program{bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(n)}, bpf.RetA{}})
	port := uint32(0) // offset of the client's port in TCP that arrives
	if mode == FanoutLocalPort {
		port = 2
	}
	quoted := 2 - port
	store := bpf.StoreScratch{Src: bpf.RegA, N: scratchKey}

	tcp4 := program{load(12, 4), store, bpf.LoadMemShift{Off: 0}, loadX(port, 2)}
	// The quoted header starts at X+8. Its length is added to X.
	icmp4 := slices.Concat(program{bpf.LoadMemShift{Off: 0}, loadX(8+16, 4), store}, quotedPorts4(), program{loadX(8+quoted, 2)})
	tcp6 := slices.Concat(fold(8), program{store, load(40+port, 2)})
	icmp6 := slices.Concat(fold(40+8+24), program{store, load(40+8+40+quoted, 2)})

	v4 := append(program{load(9, 1)}, when(protoICMP, slices.Concat(icmp4, end), slices.Concat(tcp4, end))...)
	v6 := append(program{load(6, 1)}, when(protoIP6I, slices.Concat(icmp6, end), slices.Concat(tcp6, end))...)
	version := program{load(0, 1), bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4}}
	return append(version, when(4, v4, v6)...)
}

// fold xors the four words of an IPv6 address into the accumulator.
func fold(offset uint32) program {
	p := program{load(offset, 4)}
	for i := uint32(4); i < 16; i += 4 {
		p = append(p, bpf.TAX{}, load(offset+i, 4), bpf.ALUOpX{Op: bpf.ALUOpXor})
	}
	return p
}

// mixing hashes the port in the accumulator and the address in the scratch
// word. Neighbouring and even-only ports must not fall on few workers, hence
// the two rounds of multiply and xor-shift (the finish of MurmurHash3).
func mixing(mode FanoutMode) program {
	if mode == FanoutLocalPort {
		return nil
	}
	p := program{
		bpf.StoreScratch{Src: bpf.RegA, N: scratchKey + 1},
		bpf.LoadScratch{Dst: bpf.RegA, N: scratchKey},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0x9e3779b1},
		bpf.LoadScratch{Dst: bpf.RegX, N: scratchKey + 1},
		bpf.ALUOpX{Op: bpf.ALUOpAdd},
	}
	for _, round := range []struct{ shift, factor uint32 }{{16, 0x85ebca6b}, {13, 0xc2b2ae35}, {16, 1}} {
		p = append(p, bpf.TAX{}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: round.shift}, bpf.ALUOpX{Op: bpf.ALUOpXor},
			bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: round.factor})
	}
	return p
}
