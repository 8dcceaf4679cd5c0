package box

// What an agent's memory goes to. Slabs are larger than what is in them, the user-space
// TCP has buffers of its own, and the collector finds late what is no longer used: so a
// byte of payload takes about two (docs/findings-relay.md, "What the memory is"). A fifth
// more is left free: a process near its bound does nothing but collect.
const (
	programMemory = 24 << 20 // bytes that an agent without flows takes
	flowMemory    = 8 << 10  // bytes that a flow at rest takes, with its connection
	flowPieces    = 12 << 10 // bytes that a flow with payload takes beside it: its last slabs and chunks are hardly filled
	payloadBytes  = 2.4      // that a byte of payload takes
	payloadLeast  = 8        // payload has one byte in so many of all, however many flows there are
)

// Payload is how many bytes of an agent's memory, which is `memory` of its
// configuration, the payload of so many flows may take, for the agent's resident
// memory to stay below all of it.
func Payload(memory int64, flows int) int64 {
	left := memory - programMemory - (flowMemory+flowPieces)*int64(flows)
	return max(int64(float64(left)/payloadBytes), memory/payloadLeast)
}
