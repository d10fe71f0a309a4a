//! SIGKILL for the process of a container, as the kernel would send it.

use kube::api::DeleteParams;
use serde_json::Value;

use super::objects::name;
use super::wait::PATIENCE;
use super::world::{PLATFORM, World, random};

impl World {
    /// Kills the first container's process of a pod in the platform's namespace. Neither image has a shell, and no
    /// process of a container may kill its first one: a pod among the node's processes does it.
    pub async fn kill(&self, pod: &Value) {
        let status = &pod["status"]["containerStatuses"][0];
        let id = status["containerID"]
            .as_str()
            .and_then(|id| id.rsplit('/').next())
            .expect("a running container");
        let (killer, image, node) = (
            format!("kill-{}", &random()[..8]),
            self.images.shell(),
            &pod["spec"]["nodeName"],
        );
        self.apply(&format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {killer}, namespace: {PLATFORM}}}
spec:
  restartPolicy: Never
  hostPID: true
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
    - name: kill
      image: {image}
      securityContext: {{privileged: true, runAsUser: 0}}
      command:
        - sh
        - -c
        - |
          for process in /proc/[0-9]*; do
            while read -r line; do
              case $line in *{id}*) kill -9 "${{process#/proc/}}" && exit 0 ;; esac
            done <"$process/cgroup"
          done 2>/dev/null
          exit 1
"#
        ))
        .await;
        let ended = self
            .wait("Pod", PLATFORM, &killer, "ended", |pod| {
                matches!(
                    pod["status"]["phase"].as_str(),
                    Some("Succeeded" | "Failed")
                )
            })
            .await;
        assert_eq!(
            ended["status"]["phase"],
            "Succeeded",
            "the process of {} was killed",
            name(pod)
        );
        self.delete("Pod", PLATFORM, &killer, &DeleteParams::default())
            .await;
    }

    /// Waits until the pod's container was started once more than it was in `before`.
    pub async fn restarted(&self, before: &Value) -> Value {
        let count = |pod: &Value| {
            pod["status"]["containerStatuses"][0]["restartCount"]
                .as_i64()
                .unwrap_or_default()
        };
        let (former, pod) = (count(before), name(before));
        let is = |pod: &Value| {
            count(pod) > former && pod["status"]["containerStatuses"][0]["ready"] == true
        };
        self.wait_within(PATIENCE, "Pod", PLATFORM, pod, "is ready again", is)
            .await
    }
}
