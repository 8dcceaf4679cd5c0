package relay

// Machine decides, for one direction of a flow, what is done next and what is
// watched. It is a pure value: the worker tells it what happened and asks for
// the next Action. Source and sink are the two parties of the direction: the
// plain party and the tunnel for sealing, the reverse for opening. Both
// directions of a flow have a Machine each and share only the card.
//
// Readiness of parties is edge-triggered, so the Machine latches it: a party is
// ready from the moment it says so until an operation says it would block. What
// the rules call watching is Interest: the readiness without which nothing
// moves. The rules, numbered as in docs/architecture.md:
//
//  1. Rest: nothing is held, and the source is watched for reading.
//  2. Source readable: one block is read and put into the card's input queue.
//     If the queue is full the block is refused and the card is watched for
//     reading and writing. The source is not read again while a block is
//     refused, or while the window is full. (With a window of 1: until the
//     block has been delivered.) While the sink takes all that it is given,
//     reading comes before sending, so that it is given several results at
//     once; after it did not, a result that is unsent stops reading until all
//     is sent.
//  3. Card writable: the refused block is put again. Still full: go on
//     watching. Accepted: watch the card for reading only.
//  4. Card readable: the results go to the sink, oldest first. All sent: the
//     source is watched again. Not all: keep the rest and watch the sink for
//     writing.
//  5. Sink writable: send the rest. Not all: go on watching. All: watch the
//     source, stop watching the sink.
//  6. While something is unsent, or the sink has no room for another block (a
//     tunnel without credit), the source is not read, only the sink watched.
//  7. When all is delivered the direction is at rest again. After the source's
//     end it passes the end on instead, and then watches nothing.
type Machine struct {
	window  uint8 // most blocks between source and sink
	held    uint8 // blocks between source and sink now
	results uint8 // of these: came back from the card, not sent in full
	refused bool  // one block waits for the card's input queue
	source  bool  // latched: the source may be readable
	sink    bool  // latched: the sink takes bytes
	room    bool  // latched: the sink has room for another block
	card    bool  // latched: the card's input queue may have a place
	gather  bool  // the sink took all that it was given last
	end     end
}

// end is how far the end of the source's stream has come.
type end uint8

const (
	endNone   end = iota
	endSeen       // the source has ended
	endPassed     // and the sink was told
)

// Action is what the worker does next for a direction.
type Action uint8

// Actions.
const (
	ActNone   Action = iota
	ActRead          // read a block: tell Block, SourceDry or SourceEnd
	ActPut           // put the refused block: tell Accepted or CardFull
	ActSend          // send results, oldest first: tell Sent of each, SinkFull or Dropped
	ActFinish        // tell the sink that the source has ended: tell Finished
)

// Interest is what a direction watches while it has no Action.
type Interest uint8

// Interest bits.
const (
	WatchSource Interest = 1 << iota
	WatchSink
	WatchCardRead
	WatchCardWrite
)

// NewMachine returns a direction at rest. window is the most blocks that it
// may hold, at least 1. Parties count as ready until they say otherwise.
func NewMachine(window uint8) Machine {
	return Machine{window: max(window, 1), source: true, sink: true, room: true, card: true, gather: true}
}

// Next returns what can be done now.
func (m *Machine) Next() Action {
	switch {
	case m.results > 0 && m.sink && !(m.mayRead() && m.source):
		return ActSend // rules 4, 5
	case m.refused && m.card:
		return ActPut // rule 3
	case m.refused:
		return ActNone // rule 2
	case m.end == endSeen && m.held == 0:
		return ActFinish // rule 7
	case m.mayRead() && m.source:
		return ActRead // rule 2
	}
	return ActNone
}

// mayRead reports whether another block may be held, apart from the source's
// own readiness.
func (m *Machine) mayRead() bool {
	return m.end == endNone && !m.refused && (m.results == 0 || m.gather) && m.held < m.window && m.sink && m.room
}

// Interest returns what can bring the next Action.
func (m *Machine) Interest() Interest {
	var i Interest
	if m.refused {
		i |= WatchCardRead | WatchCardWrite // rule 2
	} else if m.held > m.results {
		i |= WatchCardRead // rule 3
	}
	switch {
	case m.results > 0:
		i |= WatchSink // rules 4, 5
	case m.mayRead():
		i |= WatchSource // rules 1, 5
	case m.end == endNone && !m.refused && m.held < m.window:
		i |= WatchSink // rule 6
	}
	return i
}

// SourceReady notes that the source said it is readable.
func (m *Machine) SourceReady() { m.source = true }

// SourceDry notes that reading would have blocked.
func (m *Machine) SourceDry() { m.source = false }

// SourceEnd notes that the source has ended; what is held is still delivered.
func (m *Machine) SourceEnd() { m.end = max(m.end, endSeen) }

// SinkReady notes that the sink said it is writable.
func (m *Machine) SinkReady() { m.sink = true }

// SinkFull notes that sending would have blocked; the rest stays held.
func (m *Machine) SinkFull() { m.sink, m.gather = false, false }

// Room notes whether the sink has room for another block.
func (m *Machine) Room(ok bool) { m.room = ok }

// Block notes that a block was read; it counts as refused until the card has
// accepted it.
func (m *Machine) Block() { m.held, m.refused = m.held+1, true }

// Accepted notes that the card took the refused block.
func (m *Machine) Accepted() { m.refused = false }

// CardFull notes that the card did not take it.
func (m *Machine) CardFull() { m.card = false }

// CardReady notes that the card's input queue may have a place again.
func (m *Machine) CardReady() { m.card = true }

// Result notes that a block came back from the card.
func (m *Machine) Result() { m.results++ }

// Sent notes that the oldest result was sent in full.
func (m *Machine) Sent() {
	m.results, m.held = m.results-1, m.held-1
	m.gather = m.gather || m.results == 0
}

// Dropped notes that a result was thrown away instead of sent.
func (m *Machine) Dropped() { m.Sent() }

// Finished notes that the sink was told of the source's end.
func (m *Machine) Finished() { m.end = endPassed }

// Ended reports whether the direction is over.
func (m *Machine) Ended() bool { return m.end == endPassed }

// Idle reports whether nothing is held.
func (m *Machine) Idle() bool { return m.held == 0 }
