package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// calmed is the program of the test below: it says that it begins, becomes calm
// and tells the timer slack of several threads.
func calmed() {
	fmt.Println("begins as", os.Getpid())
	if err := calm(); err != nil {
		fmt.Println(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			runtime.LockOSThread() // a thread each
			have, err := slack()
			time.Sleep(50 * time.Millisecond)
			fmt.Println("slack", have, err)
		})
	}
	wg.Wait()
}

func TestASidecarExecutesItselfOnceToBeCalm(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path)
	cmd.Args = []string{"calmed"}
	raw, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	out := string(raw)
	begins := fmt.Sprintf("begins as %d\n", cmd.Process.Pid)
	if strings.Count(out, begins) != 2 {
		t.Errorf("it should begin twice, as process %d both times:\n%s", cmd.Process.Pid, out)
	}
	if strings.Count(out, "slack 1ms <nil>\n") != 4 {
		t.Errorf("not every thread has 1 ms:\n%s", out)
	}
}
