package warehouse.entity;

/** What was found on a place. */
public class StockCount {
    private long id;
    private long place;
    private long article;
    private int counted;
    private long by;
    private int countedOn;

    public StockCount() {
    }

    public StockCount(long id, long place, long article, int counted, long by, int countedOn) {
        this.id = id;
        this.place = place;
        this.article = article;
        this.counted = counted;
        this.by = by;
        this.countedOn = countedOn;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public long getPlace() {
        return place;
    }

    public void setPlace(long place) {
        this.place = place;
    }

    public long getArticle() {
        return article;
    }

    public void setArticle(long article) {
        this.article = article;
    }

    public int getCounted() {
        return counted;
    }

    public void setCounted(int counted) {
        this.counted = counted;
    }

    public long getBy() {
        return by;
    }

    public void setBy(long by) {
        this.by = by;
    }

    public int getCountedOn() {
        return countedOn;
    }

    public void setCountedOn(int countedOn) {
        this.countedOn = countedOn;
    }
}
