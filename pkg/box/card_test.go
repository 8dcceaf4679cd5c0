package box

import (
	"context"
	"strings"
	"testing"

	"hawser/pkg/admin"
	"hawser/pkg/card"
	"hawser/pkg/config"
	"hawser/pkg/sock"
)

// Each kind that the file may name becomes that card, and status says so.
func TestCards(t *testing.T) {
	for _, k := range []struct {
		config config.Card
		want   admin.Card
	}{
		{config.Card{Kind: config.CardInline, Queue: 9}, admin.Card{Kind: "inline", Why: "configured", Window: 4}},
		{config.Card{Kind: config.CardPool, Queue: 9}, admin.Card{Kind: "pool", Why: "configured", Workers: 3, Queue: 9, Window: 4}},
		{config.Card{Kind: config.CardPool, Workers: 2}, admin.Card{Kind: "pool", Why: "configured", Workers: 2, Queue: config.DefaultQueue, Window: 4}},
	} {
		c, err := newCards(k.config, 3)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.status(); got != k.want {
			t.Errorf("%+v, want %+v", got, k.want)
		}
		poller, err := sock.NewPoller()
		if err != nil {
			t.Fatal(err)
		}
		channel, err := c.open(poller)
		if err != nil {
			t.Fatal(err)
		}
		if (channel.FD() >= 0) != (k.want.Workers > 0) {
			t.Errorf("%s: descriptor %d", k.want.Kind, channel.FD())
		}
		channel.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := c.run(ctx); err != nil || c.counts() != (card.GuardCounts{}) {
			t.Errorf("%v, %+v", err, c.counts())
		}
		if err := poller.Close(); err != nil {
			t.Error(err)
		}
	}
	auto, err := newCards(config.Card{}, 2)
	if err != nil || !strings.Contains(auto.status().Why, "measured") || len(CheckCard(config.Card{})) != 0 {
		t.Errorf("%+v, %v", auto, err)
	}
}

// A CPU that there is not is refused in one line that names the key, by run and by
// check, whatever kind of card a measurement would pick.
func TestCardOnNoCPU(t *testing.T) {
	for _, kind := range []config.CardKind{config.CardAuto, config.CardPool} {
		bad := config.Card{Kind: kind, Queue: 9, CPUs: []int{0, 1000}}
		_, err := newCards(bad, 2)
		if err == nil || !strings.HasPrefix(err.Error(), "card.cpus: CPU 1000 ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", kind, err)
		}
		if found := CheckCard(bad); len(found) != 1 || found[0].Level != admin.LevelFail {
			t.Errorf("%v: %+v", kind, found)
		}
	}
	if _, err := newCards(config.Card{Kind: config.CardInline, CPUs: []int{1000}}, 2); err != nil {
		t.Errorf("inline binds nothing: %v", err)
	}
}

// Without AF_ALG a kernel card is refused in one line that names the key, by
// run and by check.
func TestKernelCard(t *testing.T) {
	c, err := newCards(config.Card{Kind: config.CardKernel, Queue: 9}, 2)
	found := CheckCard(config.Card{Kind: config.CardKernel})
	if card.ProbeKernel() == nil {
		if err != nil || c.status().Kind != "kernel" || found[0].Level != admin.LevelOK {
			t.Errorf("%v, %+v", err, found)
		}
		return
	}
	if err == nil || !strings.HasPrefix(err.Error(), "card.kind: kernel: ") || strings.Contains(err.Error(), "\n") || found[0].Level != admin.LevelFail {
		t.Errorf("%v, %+v", err, found)
	}
	t.Log(err)
}
