package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
)

// refresh is how often a running download is looked at.
const refresh = 200 * time.Millisecond

// curlEnds is how long curl may take to end after its output has.
const curlEnds = 5 * time.Second

// download fetches the file with curl from a port of the origin and returns
// what the client measured. It fails when not all of it arrives. atHalf is
// called once, when half of it is there.
func (d *demo) download(ctx context.Context, what string, port uint16, atHalf func(*gauge) error) (*gauge, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	url := fmt.Sprintf("http://%s/file", netip.AddrPortFrom(d.lab.Address("origin", lab.IPv4), port))
	// curl gives up by itself when nothing arrives for 20 s.
	curl := exec.Command("curl", "--silent", "--show-error", "--fail", "--connect-timeout", "10", "--speed-limit", "1", "--speed-time", "20", url)
	curl.Stdout = w
	g := newGauge(d.origin.size)
	proc, err := d.lab.StartCmd("client", curl)
	w.Close()
	if err != nil {
		return nil, err
	}
	go g.read(r)
	if err := d.follow(ctx, what, g, atHalf); err != nil {
		proc.Kill()
		<-g.done
		return nil, err
	}
	if err := proc.Wait(curlEnds); err != nil {
		return nil, fmt.Errorf("the file did not arrive: %d of %d bytes, curl: %w: %s", g.got.Load(), g.size, err, strings.TrimSpace(proc.Output()))
	}
	if g.err != nil {
		return nil, fmt.Errorf("read from curl: %w", g.err)
	}
	return g, nil
}

// follow shows a download until it ends.
func (d *demo) follow(ctx context.Context, what string, g *gauge, atHalf func(*gauge) error) error {
	ticks := time.NewTicker(refresh)
	defer ticks.Stop()
	half := g.half
	w := &window{}
	for {
		select {
		case <-ctx.Done():
			d.screen.say("stopping; the lab is being removed")
			return ctx.Err()
		case <-half:
			half = nil
			if err := atHalf(g); err != nil {
				return err
			}
		case now := <-ticks.C:
			d.screen.show(now, d.look(now, what, g, w))
		case <-g.done:
			v := d.look(time.Now(), what, g, w)
			v.elapsed, v.rate = g.took, g.rate() // of the whole, at the end
			d.screen.last(v)
			return nil
		}
	}
}

// look takes a view of a running download. Links are shown for the tunnel.
func (d *demo) look(now time.Time, what string, g *gauge, w *window) view {
	v := view{what: what, got: g.got.Load(), size: g.size, elapsed: now.Sub(g.begin)}
	counts := []uint64{uint64(v.got)}
	if what == tunnelled {
		links, err := d.pair.Links()
		for _, u := range uplinks() {
			l := links[u.Name]
			if err != nil {
				l.State = "unknown: the edge does not answer"
			}
			counts = append(counts, l.BytesDown)
			v.links = append(v.links, linkView{name: u.Name, state: l.State, limit: float64(u.Rate)})
		}
	}
	w.add(now, counts...)
	v.rate = w.rate(0)
	for i := range v.links {
		v.links[i].rate = w.rate(i + 1)
	}
	return v
}

// cut blackholes the uplink that the options name and says so.
func (d *demo) cut(g *gauge) error {
	if err := d.lab.Blackhole(d.opts.cut, emu.Both, true); err != nil {
		return err
	}
	d.cutAt = time.Since(g.begin)
	d.screen.say("  ------ %.2f s: %s is cut now, silently: packets vanish both ways, no interface goes down", d.cutAt.Seconds(), d.opts.cut)
	return nil
}

// leave does nothing at half-time.
func leave(*gauge) error { return nil }
