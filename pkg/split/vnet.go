package split

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// vnetLen is the length in bytes of the header that an AF_PACKET socket with
// PACKET_VNET_HDR puts before every frame: struct virtio_net_hdr (virtio 1.2
// section 5.1.6, without num_buffers).
const vnetLen = 10

// Values of struct virtio_net_hdr (include/uapi/linux/virtio_net.h).
const (
	vnetNeedsCsum = 1    // flags: the transport checksum holds only the pseudo header's sum
	vnetDataValid = 2    // flags: the kernel has verified the checksums
	vnetGSONone   = 0    // gso_type
	vnetGSOTCPv4  = 1    // gso_type
	vnetGSOTCPv6  = 4    // gso_type
	vnetGSOECN    = 0x80 // gso_type, added: the first segment carries CWR
)

// errVnet marks a virtio header that no TCP frame has.
var errVnet = errors.New("virtio header")

// vnetHeader is a parsed virtio header. Offsets and lengths are in bytes and
// count from the Ethernet header.
type vnetHeader struct {
	flags      uint8
	gsoType    uint8
	headerLen  uint16
	gsoSize    uint16
	csumStart  uint16
	csumOffset uint16
}

// parseVnet reads a virtio header. It returns an error that wraps errVnet when
// p is too short or the header announces segmentation of anything but TCP.
func parseVnet(p []byte) (vnetHeader, error) {
	if len(p) < vnetLen {
		return vnetHeader{}, fmt.Errorf("%w: %d bytes, want %d", errVnet, len(p), vnetLen)
	}
	h := vnetHeader{
		flags:      p[0],
		gsoType:    p[1],
		headerLen:  binary.LittleEndian.Uint16(p[2:]),
		gsoSize:    binary.LittleEndian.Uint16(p[4:]),
		csumStart:  binary.LittleEndian.Uint16(p[6:]),
		csumOffset: binary.LittleEndian.Uint16(p[8:]),
	}
	switch h.gsoType &^ vnetGSOECN {
	case vnetGSONone, vnetGSOTCPv4, vnetGSOTCPv6:
	default:
		return vnetHeader{}, fmt.Errorf("%w: segmentation type %d is not TCP", errVnet, h.gsoType)
	}
	if h.gso() && h.gsoSize == 0 {
		return vnetHeader{}, fmt.Errorf("%w: segment size 0", errVnet)
	}
	return h, nil
}

// put writes the header to p, which has at least vnetLen bytes.
func (h vnetHeader) put(p []byte) {
	p[0] = h.flags
	p[1] = h.gsoType
	binary.LittleEndian.PutUint16(p[2:], h.headerLen)
	binary.LittleEndian.PutUint16(p[4:], h.gsoSize)
	binary.LittleEndian.PutUint16(p[6:], h.csumStart)
	binary.LittleEndian.PutUint16(p[8:], h.csumOffset)
}

// gso says that the frame is longer than the MTU and stands for several.
func (h vnetHeader) gso() bool { return h.gsoType&^vnetGSOECN != vnetGSONone }

// trusted says that the transport checksum needs no check: the frame has not
// left this machine since its checksum was left open (NEEDS_CSUM), or the
// kernel or the NIC has verified it.
func (h vnetHeader) trusted() bool { return h.flags&(vnetNeedsCsum|vnetDataValid) != 0 }
