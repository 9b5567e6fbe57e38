#!/usr/bin/env bash
# The main job on scikit-learn's digits: a pruning method proposes, a search refines under a budget,
# the front is trained again with several seeds, and specs and plain PyTorch come out.
# A second run reuses what the first one found.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
environment demo

guides=runs/demo-guides
mkdir -p "$guides"
find_guide() { # NAME REFERENCE
  if [ ! -f "$guides/$1-profile.json" ]; then
    rm -f "$guides/$1.json"
    echo "== Network Slimming proposes an architecture for $2 ($1)"
    prunenas generate network_slimming --reference "$2" --width 0.25 --data digits --keep 0.4 \
      --epochs 12 --recipe-set batch=64 --recipe-set lr=0.2 --recipe-set precision=fp32 --set strength=0.001 \
      --out "$guides/$1.json"
    prunenas profile "$guides/$1.json" --out "$guides/$1-profile.json"
  fi
}
find_guide guided vgg13
find_guide transferred vgg11

echo "== The search refines it for vgg13 under a budget, and the front is trained again"
prunenas search search_spaces/digits_vgg13.toml --guide "$guides/guided-profile.json" \
  --transferred "$guides/transferred-profile.json" --out runs/demo

printf '#!/usr/bin/env bash\n# From the root of the checkout.\nbash scripts/demo.sh\n' > runs/demo/reproduce.sh
