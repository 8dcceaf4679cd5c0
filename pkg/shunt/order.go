package shunt

import "encoding/binary"

// network is a port as it stands in a header.
func network(port uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(port >> 8), byte(port)})
}

// twoHalves is the word that two halves make in memory.
func twoHalves(a, b uint16) uint32 {
	var w [4]byte
	binary.NativeEndian.PutUint16(w[:], a)
	binary.NativeEndian.PutUint16(w[2:], b)
	return binary.NativeEndian.Uint32(w[:])
}
