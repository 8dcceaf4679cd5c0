package relay

import "testing"

// steps names the Machine's events, so that tables read like the rules.
type step func(*Machine)

func is(a Action, i Interest) step {
	return func(m *Machine) {
		if got := m.Next(); got != a {
			panic(failure{"next action", int(got), int(a)})
		}
		if a == ActNone {
			if got := m.Interest(); got != i {
				panic(failure{"interest", int(got), int(i)})
			}
		}
	}
}

type failure struct {
	what      string
	got, want int
}

var (
	sourceReady, sourceDry, sourceEnd step = (*Machine).SourceReady, (*Machine).SourceDry, (*Machine).SourceEnd
	sinkReady, sinkFull               step = (*Machine).SinkReady, (*Machine).SinkFull
	block, accepted, cardFull         step = (*Machine).Block, (*Machine).Accepted, (*Machine).CardFull
	cardReady, result, sent           step = (*Machine).CardReady, (*Machine).Result, (*Machine).Sent
	dropped, finished                 step = (*Machine).Dropped, (*Machine).Finished
	hasRoom, noRoom                   step = func(m *Machine) { m.Room(true) }, func(m *Machine) { m.Room(false) }

	read, put, send, finish = is(ActRead, 0), is(ActPut, 0), is(ActSend, 0), is(ActFinish, 0)
)

func watches(i Interest) step { return is(ActNone, i) }

func TestRules(t *testing.T) {
	const window = 1
	const source, sink, cardIn, cardOut = WatchSource, WatchSink, WatchCardWrite, WatchCardRead
	for _, k := range []struct {
		name   string
		window uint8
		steps  []step
	}{
		{"1 a new direction tries its source, then watches it only", window,
			[]step{read, sourceDry, watches(source)}},
		{"2 a block goes to the card; the source is not read until it is delivered", window,
			[]step{read, block, put, accepted, watches(cardOut), sourceReady, watches(cardOut)}},
		{"2 the card's queue is full: watch it for both", window,
			[]step{read, block, put, cardFull, watches(cardOut | cardIn), sourceReady, watches(cardOut | cardIn)}},
		{"2 a window of three reads ahead, and no further", 3,
			[]step{read, block, accepted, read, block, accepted, read, block, accepted, watches(cardOut)}},
		{"2 a refused block stops reading ahead", 3,
			[]step{read, block, accepted, read, block, put, cardFull, watches(cardOut | cardIn)}},
		{"3 card writable: put again; still full", window,
			[]step{block, cardFull, cardReady, put, cardFull, watches(cardOut | cardIn)}},
		{"3 card writable: put again; accepted", window,
			[]step{block, cardFull, cardReady, put, accepted, watches(cardOut)}},
		{"4 result sent in full: the source is watched again", window,
			[]step{block, accepted, result, send, sent, read, sourceDry, watches(source)}},
		{"4 result not sent in full: watch the sink, not the source", window,
			[]step{block, accepted, result, send, sinkFull, watches(sink), sourceReady, watches(sink)}},
		{"4 the oldest result is sent while others are in the card", 2,
			[]step{block, accepted, block, accepted, result, send, sent, read, sourceDry, watches(source | cardOut)}},
		{"5 sink writable: still not all", window,
			[]step{block, accepted, result, sinkFull, sinkReady, send, sinkFull, watches(sink)}},
		{"5 sink writable: all; the source is watched, the sink no more", window,
			[]step{block, accepted, result, sinkFull, sinkReady, send, sent, read, sourceDry, watches(source)}},
		{"6 unsent data stops reading ahead", 3,
			[]step{block, accepted, result, sinkFull, watches(sink)}},
		{"2 a sink that takes all is given several results at once", 3,
			[]step{block, accepted, result, read, block, accepted, result, read, sourceDry, send, sent, send, sent, watches(source)}},
		{"2 results are sent when the window is full", 2,
			[]step{block, accepted, result, read, block, accepted, result, send, sent, read, sourceDry, send, sent}},
		{"2 a sink that did not take all gets one result at a time until it has all", 3,
			[]step{block, accepted, result, block, accepted, result, sinkFull, sinkReady, send, sent, send, sent,
				read, block, accepted, result, read}},
		{"6 a sink without room: only that is watched", window,
			[]step{noRoom, watches(sink), sourceReady, watches(sink), hasRoom, read}},
		{"6 room lost with blocks in the card: they are still sent", 3,
			[]step{block, accepted, noRoom, watches(cardOut | sink), result, send, sent, watches(sink), hasRoom, read}},
		{"6 a full sink is watched, not the source, also when what it did not take was dropped", window,
			[]step{block, accepted, result, sinkFull, dropped, watches(sink), sourceReady, watches(sink), sinkReady, read}},
		{"7 the end is passed on at once when nothing is held", window,
			[]step{read, sourceEnd, finish, finished, watches(0)}},
		{"7 the end waits for the card", window,
			[]step{block, accepted, sourceEnd, watches(cardOut), result, send, sent, finish, finished, watches(0)}},
		{"7 the end waits for the sink", window,
			[]step{block, accepted, result, sinkFull, sourceEnd, watches(sink), sinkReady, send, sent, finish}},
		{"7 the end needs no room", window,
			[]step{noRoom, sourceEnd, finish, finished, watches(0), hasRoom, sourceReady, watches(0)}},
		{"7 the end is not seen twice", window,
			[]step{sourceEnd, finished, sourceEnd, watches(0)}},
		{"a source that was rejected starts again while a void block is in the card", 2,
			[]step{block, accepted, block, accepted, result, send, dropped, sourceDry, watches(source | cardOut), sourceReady, read,
				result, dropped, read}},
		{"a window of none is one", 0,
			[]step{read, block, accepted, watches(cardOut)}},
	} {
		t.Run(k.name, func(t *testing.T) {
			m := NewMachine(k.window)
			for i, s := range k.steps {
				func() {
					defer func() {
						if f, ok := recover().(failure); ok {
							t.Fatalf("step %d: %s is %d, want %d (%+v)", i, f.what, f.got, f.want, m)
						}
					}()
					s(&m)
				}()
			}
		})
	}
}

func TestEnded(t *testing.T) {
	m := NewMachine(1)
	if m.Ended() || !m.Idle() {
		t.Error("a new direction has ended or holds something")
	}
	m.Block()
	m.SourceEnd()
	if m.Ended() || m.Idle() {
		t.Error("ended before the block was delivered")
	}
	m.Accepted()
	m.Result()
	m.Sent()
	m.Finished()
	if !m.Ended() || !m.Idle() {
		t.Error("not ended")
	}
}
