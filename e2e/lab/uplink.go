package lab

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"hawser/e2e/emu"
)

// startEmulator runs hawser-emu for the shaped uplinks.
func (l *Lab) startEmulator() error {
	c := emu.Config{Seed: l.spec.Seed, TickMicros: int(l.spec.Tick / time.Microsecond)}
	add := func(u Uplink, suffix string) {
		up, down := u.params()
		c.Paths = append(c.Paths, emu.PathConfig{Name: u.Name, A: "a" + suffix, B: "b" + suffix, Up: up, Down: down})
	}
	for i, u := range l.spec.Uplinks {
		if !u.Unshaped {
			add(u, strconv.Itoa(i+1))
		}
	}
	if l.spec.LAN != nil {
		add(*l.spec.LAN, lanName)
	}
	if len(c.Paths) == 0 {
		return nil
	}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	config, err := l.WriteFile("emu.json", string(text))
	if err != nil {
		return err
	}
	binary := l.spec.Emulator
	if binary == "" {
		if binary, err = Binary("hawser/e2e/emu/hawser-emu"); err != nil {
			return err
		}
	}
	socket := filepath.Join(l.dir, "emu.sock")
	if l.pump, err = l.Start(emuNode, binary, "run", config, socket); err != nil {
		return err
	}
	if err := l.pump.WaitFor("ready", 30*time.Second); err != nil {
		return err
	}
	l.emu, err = emu.Dial(socket)
	return err
}

// Set changes an uplink while it runs, in one or both directions (emu.Up is from the
// edge to the cloud). "lan" is the clients' line, if that is shaped.
func (l *Lab) Set(uplink string, dir emu.Direction, changes ...emu.Change) error {
	if err := l.shaped(uplink); err != nil {
		return err
	}
	return l.emu.Set(uplink, dir, changes...)
}

// Blackhole cuts an uplink silently (no link goes down), or restores it.
func (l *Lab) Blackhole(uplink string, dir emu.Direction, on bool) error {
	return l.Set(uplink, dir, emu.SetBlackhole(on))
}

// Counters returns the reading of an uplink.
func (l *Lab) Counters(uplink string) (emu.PathStatus, error) {
	if err := l.shaped(uplink); err != nil {
		return emu.PathStatus{}, err
	}
	return l.emu.Status(uplink)
}

// ForgetLateness begins an uplink's lateness counters anew.
func (l *Lab) ForgetLateness(uplink string) error {
	if err := l.shaped(uplink); err != nil {
		return err
	}
	return l.emu.Forget(uplink)
}

// Emulator returns the emulator's process, nil if all uplinks are unshaped.
func (l *Lab) Emulator() *Proc { return l.pump }

func (l *Lab) shaped(uplink string) error {
	if uplink == lanName && l.spec.LAN != nil {
		return nil
	}
	i := l.index(uplink)
	switch {
	case i == 0:
		return l.noUplink(uplink)
	case l.spec.Uplinks[i-1].Unshaped:
		return fmt.Errorf("uplink %s is unshaped: there is no emulator to ask", uplink)
	}
	return nil
}

func (l *Lab) noUplink(name string) error {
	return fmt.Errorf("lab %s has no uplink %q", l.spec.Name, name)
}
