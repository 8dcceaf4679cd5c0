package wire

// A link may run on several connections at once, its lanes (section 3.1). Each is
// a link of its own to the session; its index says of which uplink it is.

// MaxUplinks and MaxLanes bound what an index can say.
const (
	MaxUplinks = 256
	MaxLanes   = 8
)

// LinkIndex returns the index of a lane, from 0, of the edge's uplink, from 0.
func LinkIndex(uplink, lane int) uint16 { return uint16(lane<<8 | uplink) }

// UplinkOf returns the uplink of an index.
func UplinkOf(index int) int { return index & (MaxUplinks - 1) }

// LaneOf returns the lane of an index.
func LaneOf(index int) int { return index >> 8 }
