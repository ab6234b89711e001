package haproxy

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// replaceFile puts a whole file in the place of another: a reader sees the old
// one or the new one. If it is durable, that is so after a crash of the machine
// too, and it takes as long as the disk does.
func replaceFile(path string, content []byte, mode os.FileMode, durable bool) (err error) {
	temporary := path + ".tmp"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary)
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if _, err = f.Write(content); err == nil && durable {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	if err = os.Rename(temporary, path); err != nil || !durable {
		return err
	}
	return syncPath(filepath.Dir(path))
}

// syncPath has a file or directory written to disk.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}
