package sealed

// blockFlows is how many flows' marks lie in one block.
const blockFlows = 1024

// reach is how far behind the newest flow of an association a join may come,
// at least, in flows.
const reach = (blocks - 1) * blockFlows

const blocks = 64

// once tells whether a flow's number was used, so that a join is accepted once
// (the sliding window of RFC 4303 section 3.4.3, in blocks). Its memory grows
// with what is used: 128 bytes for 1024 flows, at most 8 KB.
type once struct {
	newest uint64 // number of the newest block
	ring   [blocks]*[blockFlows / 64]uint64
}

// take reports whether the flow's number is fresh, and uses it up.
func (o *once) take(flow uint64) bool {
	block := flow / blockFlows
	if block+blocks <= o.newest {
		return false // too old to know
	}
	for ; o.newest < block; o.newest++ {
		if block-o.newest > blocks { // what lies between has left the window unused
			o.newest = block - blocks
		}
		o.ring[(o.newest+1)%blocks] = nil
	}
	marks := o.ring[block%blocks]
	if marks == nil {
		marks = new([blockFlows / 64]uint64)
		o.ring[block%blocks] = marks
	}
	word, bit := flow%blockFlows/64, uint64(1)<<(flow%64)
	if marks[word]&bit != 0 {
		return false
	}
	marks[word] |= bit
	return true
}
