package emu

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Config lists the paths of an emulator. As JSON:
//
//	{"seed": 1, "tick_us": 200, "paths": [
//	  {"name": "wifi", "a": "ea1", "b": "eb1",
//	   "up":   {"rate": 20000000, "delay": "20ms", "queue": "80ms", "loss": 0.01},
//	   "down": {"trace": "starlink-direct.down", "delay": "20ms"}}]}
type Config struct {
	// Seed fixes every random draw; equal seeds give equal losses for equal arrivals.
	Seed uint64 `json:"seed"`
	// TickMicros is the shortest sleep between two passes, in microseconds; 0 means
	// 200. Longer costs less CPU and lets frames leave up to that much late.
	TickMicros int          `json:"tick_us"`
	Paths      []PathConfig `json:"paths"`
}

// PathConfig is one path between interfaces A and B.
type PathConfig struct {
	Name string `json:"name"`
	A    string `json:"a"`
	B    string `json:"b"`
	Up   Params `json:"up"`   // from A to B
	Down Params `json:"down"` // from B to A
}

const defaultTick = 200 * time.Microsecond

// LoadConfig reads a configuration file. It checks the form; Open checks the values.
func LoadConfig(name string) (Config, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return Config{}, fmt.Errorf("emulator config: %w", err)
	}
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, fmt.Errorf("emulator config %s: %w", name, err)
	}
	return c, nil
}

func (c Config) tick() time.Duration {
	if c.TickMicros <= 0 {
		return defaultTick
	}
	return time.Duration(c.TickMicros) * time.Microsecond
}
