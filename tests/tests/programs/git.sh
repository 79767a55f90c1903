# git on a mount: history, a clone, garbage collection, and commits from four worktrees of one repository at once
cd "$1"
export HOME="$1/home" GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b.c GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b.c
mkdir home
git init -q -b main repo
cd repo
for i in $(seq 1 12); do seq 1 $((i * 100)) >f$i; git add .; git commit -qm "commit $i"; done
for w in 1 2 3 4; do git worktree add -q -b branch$w ../worktree$w; done
pids=()
for w in 1 2 3 4; do
  (
    cd ../worktree$w
    for i in $(seq 1 8); do echo "$w $i" >>own$w; git add .; git commit -qm "worktree $w commit $i"; done
  ) &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
for w in 1 2 3 4; do
  [ "$(git rev-list --count main..branch$w)" = 8 ]
  [ "$(git show branch$w:own$w | wc -l)" = 8 ]
done
git merge -q -m octopus branch1 branch2 branch3 branch4
[ "$(cat own3 | wc -l)" = 8 ]
git worktree remove ../worktree4
git repack -qad
git gc -q --aggressive --prune=now
git fsck --strict --full
cd ..
git clone -q repo hard                     # objects by hard links
git clone -q --no-local repo packed        # objects by a pack
git clone -q --bare --mirror repo mirror
for clone in hard packed mirror; do git -C $clone fsck --strict; done
[ "$(git -C hard rev-parse HEAD)" = "$(git -C packed rev-parse HEAD)" ]
cd packed
git checkout -q HEAD~3
git stash list
git switch -qc topic main~1
echo x >>f1; git commit -qam topic
git rebase -q main
git push -q origin topic
[ -z "$(git status --porcelain)" ]
cd ../hard && git pull -q && git fsck --strict
