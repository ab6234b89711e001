// Package validate decodes the manifests into the types of Kubernetes itself,
// strictly: a field that does not exist, or twice, or of the wrong kind is an
// error. It is a module of its own, so that tandem's has none of Kubernetes'.
package validate

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// decode reads every object of a manifest.
func decode(text []byte) ([]runtime.Object, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	var all []runtime.Object
	documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	for {
		buffer := make([]byte, 1<<20)
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		object, _, err := strict.Decode(buffer[:n], nil, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, object)
	}
}

// manifests are all objects of the example.
func manifests(t *testing.T) []runtime.Object {
	t.Helper()
	files, err := filepath.Glob("../*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("manifests: %v %v", files, err)
	}
	var all []runtime.Object
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := decode(text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, objects...)
	}
	return all
}

func TestManifestsAreOfKubernetes(t *testing.T) {
	kinds := map[string]int{}
	for _, object := range manifests(t) {
		kinds[object.GetObjectKind().GroupVersionKind().Kind]++
	}
	for _, kind := range []string{"DaemonSet", "Deployment", "Secret", "PodDisruptionBudget", "NetworkPolicy"} {
		if kinds[kind] == 0 {
			t.Errorf("there is no %s", kind)
		}
	}
}

// The check itself: what is not of Kubernetes is found.
func TestAFieldThatDoesNotExistIsAnError(t *testing.T) {
	_, err := decode([]byte("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringdata: {a: b}\n"))
	if err == nil {
		t.Error("a misspelt field was accepted")
	}
}
