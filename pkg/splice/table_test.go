package splice

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"unsafe"
)

// perFlow is what a spliced flow may take here, in bytes, with its share of the
// indexes: of 256 altogether pkg/shunt takes 112.
const perFlow = 256 - 112

// TestMemory: the state of a flow and what the table adds to it.
func TestMemory(t *testing.T) {
	const flows = 60000
	w := newWorld(t, false)
	size := unsafe.Sizeof(flow{})
	before := heap()
	table := w.tableWith(Config{Limit: flows})
	table.cfg.Emit = func([]byte) {}
	for i := range flows {
		if !table.Open(0, clientNumber(i)) {
			t.Fatalf("no room for flow %d", i)
		}
	}
	used := heap() - before
	t.Logf("%d bytes of state, %d bytes per flow with indexes", size, used/flows)
	if size > perFlow || used > flows*perFlow {
		t.Errorf("a flow takes %d bytes, %d with indexes; at most %d", size, used/flows, perFlow)
	}
	if table.Open(0, clientNumber(flows)) {
		t.Error("a flow beyond the limit was taken")
	}
	table.Sweep(1e9)
	for i := range int32(flows) {
		table.drop(i)
	}
	if table.Flows() != 0 {
		t.Errorf("%d flows left", table.Flows())
	}
	runtime.KeepAlive(table)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// clientNumber is one of many clients, of several servers.
func clientNumber(i int) Client {
	addr := [4]byte{10, 2, 0, 0}
	binary.BigEndian.PutUint16(addr[2:], uint16(i/100))
	server := [4]byte{198, 51, 100, byte(i % 5)}
	return Client{
		Addr:    netip.AddrPortFrom(netip.AddrFrom4(addr), uint16(1000+i%100)),
		Server:  netip.AddrPortFrom(netip.AddrFrom4(server), 443),
		Offered: full(1), Told: full(2),
	}
}

// TestFind: whatever the table has grown to, each flow is found from both ends
// and no more after it was dropped.
func TestFind(t *testing.T) {
	w := newWorld(t, false)
	table := w.tableWith(Config{})
	const flows = 3000
	found := func(i int) (here, hub bool) {
		c := clientNumber(i)
		f := table.at(int32(i))
		return table.byClient(keyOf(c.Addr, c.Server)) == int32(i), table.byServer(table.hubKey(f)) == int32(i)
	}
	for i := range flows {
		if !table.Open(0, clientNumber(i)) {
			t.Fatalf("no room for flow %d", i)
		}
		for _, j := range []int{0, i / 2, i} {
			if here, hub := found(j); !here || !hub {
				t.Fatalf("with %d flows, flow %d is found from the client %v, from the server %v", i+1, j, here, hub)
			}
		}
	}
	for i := 0; i < flows; i += 2 {
		table.drop(int32(i))
	}
	for i := range flows {
		if here, hub := found(i); here != (i%2 == 1) || hub != here {
			t.Fatalf("flow %d is found from the client %v, from the server %v", i, here, hub)
		}
	}
}

// TestPorts: a worker's flows have ports of its own, and no two to one server
// the same; without a free one clients are not taken.
func TestPorts(t *testing.T) {
	w := newWorld(t, false)
	table := w.tableWith(Config{Worker: 3, Workers: 1000})
	seen := map[uint16]bool{}
	for i := range 200 {
		if !table.Open(0, clientNumber(5*i)) {
			break
		}
		port := w.one().src.Port()
		if port%1000 != 3 || port < firstPort || seen[port] {
			t.Fatalf("port %d after %v", port, seen)
		}
		seen[port] = true
	}
	if n := table.Flows(); n != (65536-firstPort)/1000 {
		t.Errorf("%d flows to one server", n)
	}
	if table.Counters().Full == 0 {
		t.Error("nobody was turned away")
	}
	if !table.Open(0, clientNumber(1)) {
		t.Error("a flow to another server has no port")
	}
}

// openAndEnd makes a flow whose ends close it at once, and returns its port.
func (w *world) openAndEnd(table *Table, c Client) (port uint16, ok bool) {
	w.table, w.c, w.s = table, c.Addr, c.Server
	if !table.Open(w.now, c) {
		return 0, false
	}
	w.took()
	w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: 900, ack: c.ISS + 1, window: 32000, opts: full(7).appendTo(nil)})
	w.took()
	w.forward(w.fromClient(flagFIN, c.ISS+1, c.Ours+1, ""))
	w.forward(w.fromServer(flagFIN, 901, c.ISS+2, ""))
	w.forward(w.fromClient(0, c.ISS+2, c.Ours+2, ""))
	return w.hub.Port(), true
}

// TestEndedMakeRoom: flows that have ended leave their places and ports to new ones when
// no others are left; those that are open keep theirs.
func TestEndedMakeRoom(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		room int
	}{
		"places": {Config{Limit: 2 * chunk}, 2 * chunk},
		"ports":  {Config{Workers: 1000}, (65536 - firstPort) / 1000},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, false)
			table := w.tableWith(c.cfg)
			if !table.Open(w.now, clientNumber(0)) {
				t.Fatal("no room for the first")
			}
			kept := w.one().src.Port()
			for i := range 3 * c.room {
				port, ok := w.openAndEnd(table, clientNumber(5*(i+1)))
				if !ok {
					t.Fatalf("no room for client %d of %d, one after the other", i+1, c.room)
				}
				if port == kept {
					t.Fatalf("client %d has the port of a flow that stands", i+1)
				}
			}
			if n := table.Flows(); n != c.room {
				t.Errorf("%d flows, want %d", n, c.room)
			}
			for i := range 10 * c.room { // who ask again and again, until nobody else has ended
				table.Open(w.now, clientNumber(5*(3*c.room+i+1)))
			}
			w.took()
			if table.Flows() != c.room || table.byClient(keyOf(clientNumber(0).Addr, clientNumber(0).Server)) == none {
				t.Errorf("%d flows, the first of them is gone", table.Flows())
			}
			for i := range table.flows {
				for _, f := range table.flows[i] {
					if f.state == ended {
						t.Fatal("one that has ended has a place that others asked for")
					}
				}
			}
		})
	}
}

// TestFamilies: without an address of its own family nothing is spliced.
func TestFamilies(t *testing.T) {
	w := newWorld(t, true)
	w.table.cfg.Hub6 = netip.Addr{}
	w.table.Greet(0, packetOf(tcp{src: w.c, dst: w.s, flags: flagSYN}.packet()), 1)
	if len(w.sent) != 0 || w.table.Flows() != 0 {
		t.Error("greeted")
	}
}

// TestConfig: what New refuses.
func TestConfig(t *testing.T) {
	good := Config{Workers: 1, MSS: 1460, Emit: func([]byte) {}, Random: func() uint32 { return 0 }}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Config){
		"Emit": func(c *Config) { c.Emit = nil }, "Random": func(c *Config) { c.Random = nil },
		"MSS": func(c *Config) { c.MSS = 100 }, "Scale": func(c *Config) { c.Scale = 15 },
		"Worker": func(c *Config) { c.Worker = 1 }, "Limit": func(c *Config) { c.Limit = -1 },
	} {
		c := good
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestAllocations: translating takes no memory.
func TestAllocations(t *testing.T) {
	u := modern()
	w := spliced(t, u)
	up := packetOf(w.fromClient(0, u.iss+1, u.isn+1, "data", appendStamps(nil, 1, 2)...).packet())
	down := packetOf(w.fromServer(0, u.srv+1, u.iss+1, "data", append(appendStamps(nil, 1, 2), optNop, optNop, optSACK, 10, 0, 0, 0, 1, 0, 0, 0, 2)...).packet())
	n := testing.AllocsPerRun(100, func() {
		if w.table.Handle(w.now, up) != Forward || w.table.Handle(w.now, down) != Forward {
			t.Fatal("not forwarded")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations per pair of segments", n)
	}
}

func BenchmarkTranslate(b *testing.B) {
	u := modern()
	w := spliced(b, u)
	p := packetOf(w.fromClient(0, u.iss+1, u.isn+1, "data", appendStamps(nil, 1, 2)...).packet())
	for b.Loop() {
		w.table.Handle(w.now, p)
	}
}
