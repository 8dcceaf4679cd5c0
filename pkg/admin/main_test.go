package admin

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails the package when a goroutine of this package outlives the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leaked(); code == 0 && left != "" {
		fmt.Println("goroutines left behind:\n" + left)
		code = 1
	}
	os.Exit(code)
}

func leaked() string {
	var left string
	for range 50 {
		left = ""
		buf := make([]byte, 1<<20)
		for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")[1:] {
			if strings.Contains(stack, "hawser/pkg/admin.") {
				left += stack + "\n\n"
			}
		}
		if left == "" {
			break
		}
		time.Sleep(10 * time.Millisecond) // the scheduler may not have run their last instructions
	}
	return left
}
