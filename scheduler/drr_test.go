package scheduler

import "testing"

// serve lets the order run for n bytes in chunks and returns each flow's share.
func serve(d *DRR[int], chunk, n int) map[int]int {
	got := map[int]int{}
	for n > 0 {
		node := d.Next()
		got[node.Flow] += chunk
		n -= chunk
		d.Charge(node, chunk)
	}
	return got
}

func TestDRRShares(t *testing.T) {
	for _, chunk := range []int{1000, 16 << 10} {
		var d DRR[int]
		for i := range 10 {
			d.Activate(&Node[int]{Flow: i, sent: NewFlow})
		}
		for i, n := range serve(&d, chunk, 10<<20) {
			if n < 1<<20-2*Quantum || n > 1<<20+2*Quantum {
				t.Errorf("chunks of %d: flow %d got %d of 1048576", chunk, i, n)
			}
		}
	}
}

func TestDRRNewFlowsFirst(t *testing.T) {
	var d DRR[int]
	old := &Node[int]{Flow: 1, sent: NewFlow}
	d.Activate(old)
	d.Activate(&Node[int]{Flow: 2})
	if n := d.Next(); n.Flow != 2 {
		t.Fatalf("flow %d before the new one", n.Flow)
	}
	got := serve(&d, 1000, NewFlow)
	if got[2] < NewFlow*3/4 {
		t.Errorf("the new flow got %d of its first %d bytes", got[2], NewFlow)
	}
	if got[1] == 0 {
		t.Error("the old flow starved")
	}
	if got := serve(&d, 1000, 1<<20); got[1] < 2*got[2]/3 {
		t.Errorf("once old, both share: %v", got)
	}
}

func TestDRRInAndOut(t *testing.T) {
	var d DRR[int]
	nodes := []*Node[int]{{Flow: 0}, {Flow: 1}, {Flow: 2}}
	for _, n := range nodes {
		d.Activate(n)
		d.Activate(n)
	}
	if d.Len() != 3 {
		t.Fatalf("%d in line", d.Len())
	}
	d.Remove(nodes[1])
	d.Remove(nodes[1])
	got := serve(&d, 1000, 100_000)
	if got[1] != 0 || d.Len() != 2 {
		t.Errorf("a removed flow was served: %v", got)
	}
	d.Remove(nodes[0])
	d.Remove(nodes[2])
	if d.Next() != nil || d.Len() != 0 {
		t.Error("an empty order has a next flow")
	}
}
