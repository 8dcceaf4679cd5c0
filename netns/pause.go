package netns

import (
	"errors"
	"fmt"
)

// pauseWords let a connection's first SYN pass unmarked: the connection takes
// the host's ordinary way for as long as it lives.
const pauseWords = "-p tcp --syn -j RETURN"

// PauseTaking makes an edge without a hub leave new connections alone, or take
// them again. Those that stand stay as they are. A second call with the same
// value does nothing.
func (h *Host) PauseTaking(on bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.paused == on {
		return nil
	}
	err := inside(h.home, func() error { return h.pause(on) })
	if err != nil {
		return fmt.Errorf("pause steering: %w", err)
	}
	h.paused = on
	return nil
}

// pause changes every chain that marks first SYNs. They are removed as a whole
// when the host is closed, so there is nothing to undo.
func (h *Host) pause(on bool) error {
	var errs []error
	for _, fw := range h.walls {
		for _, part := range []string{"TAKE", "MARK"} {
			chain := h.names.chain(part)
			there, err := fw.ChainExists("mangle", chain)
			if err != nil || !there {
				errs = append(errs, oneLine(err))
				continue
			}
			if on {
				// Unique: a pause that failed for one family is tried again for both.
				errs = append(errs, oneLine(fw.InsertUnique("mangle", chain, 1, words(pauseWords)...)))
			} else {
				errs = append(errs, oneLine(fw.DeleteIfExists("mangle", chain, words(pauseWords)...)))
			}
		}
	}
	return errors.Join(errs...)
}

// Forwards tells whether the host forwards IPv4 packets that arrive by all of
// the interfaces, so that who is behind them can reach others through it.
func Forwards(interfaces []string) bool {
	for _, device := range interfaces {
		if on, err := readSysctl(confPath(4, device, "forwarding")); err != nil || on != "1" {
			return false
		}
	}
	return true
}
